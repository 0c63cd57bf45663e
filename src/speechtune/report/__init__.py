"""Pages for people about the results of the other rooms."""
