"""What a run minimises beside the labels' loss, one file a term; see `speechtune.training.objectives.combine`."""
