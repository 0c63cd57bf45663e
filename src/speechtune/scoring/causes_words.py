"""Words that causes of errors are told by: function words, hesitations, homophones, number words.

The lists are this project's own, and data: a language is added by adding a key.
"""

# ruff: noqa: SIM905

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable

from speechtune.scoring.normalisation.english_numbers import (
    MULTIPLIERS,
    MULTIPLIERS_SUFFIXED,
    ONES,
    ONES_SUFFIXED,
    TENS,
    TENS_SUFFIXED,
)

FUNCTION_WORDS: dict[str, frozenset[str]] = {
    "en": frozenset(
        (
            "a an the this that these those some any no every each all both either neither "
            "i me my mine you your yours he him his she her hers it its we us our ours they them their theirs "
            "who whom whose which what and or but nor so if then than because as while when where why how "
            "of in on at to from by with without for about into over under after before between through up down off "
            "out near is am are was were be been being do does did done have has had having will would shall should "
            "can could may might must not there here just very too also only im ive id ill youre youve hes shes its "
            "were theyre weve dont doesnt didnt isnt arent wasnt werent cant wont couldnt wouldnt shouldnt"
        ).split()
    )
}
"""Articles, pronouns, conjunctions, prepositions, auxiliaries and their negations."""

FILLERS = {
    "en": frozenset("um umm uhm uh uhh er erm ah ahh eh hm hmm mm mmm mhm huh".split()),
    "de": frozenset("äh ähm öh öhm hm hmm mm mhm".split()),
    "fr": frozenset("euh heu hein hum hm hmm mm".split()),
    "es": frozenset("eh em hm hmm mm".split()),
    "it": frozenset("eh ehm uhm mh hm hmm mm beh mah".split()),
    "he": frozenset("אה אמ אממ אהה המ".split()),
}
"""Words of hesitation by language: what is one in English can be a word elsewhere (German "er", Portuguese "um")."""

ANY_FILLERS = frozenset("uh hm hmm mm mmm mhm".split())
"""Those that are taken for hesitations in every other language."""

_HOMOPHONES = (
    "ad add; ail ale; air heir ere; aisle isle; allowed aloud; alter altar; ant aunt; arc ark; ate eight; ball bawl; "
    "bare bear; base bass; be bee; beach beech; bean been; beat beet; berry bury; billed build; blew blue; board bored;"
    "bolder boulder; born borne; bow bough; boy buoy; brake break; bread bred; buy by bye; capital capitol; ceiling "
    "sealing; cell sell; cent scent sent; cereal serial; chews choose; chili chilly; cite sight site; coarse course; "
    "creak creek; cue queue; days daze; dear deer; dew due do; die dye; doe dough; earn urn; ewe you yew; eye i aye; "
    "fair fare; feat feet; find fined; fir fur; flaw floor; flea flee; flew flu flue; flour flower; for four fore; "
    "forth fourth; fowl foul; gait gate; great grate; groan grown; guessed guest; hair hare; hall haul; hay hey; heal "
    "heel hell; hear here; heard herd; hi high; higher hire; him hymn; hole whole; hoarse horse; hour our; idle idol; "
    "in inn; key quay; knead need; knew new gnu; knight night; knit nit; knot not; know no; knows nose; lead "
    "led; leak leek; lessen lesson; loan lone; made maid; mail male; main mane; maze maize; meat meet; medal meddle; "
    "might mite; mind mined; missed mist; moose mousse; morning mourning; muscle mussel; none nun; oar or ore; one won;"
    "paced paste; pail pale; pain pane; pair pare pear; passed past; patience patients; pause paws; peace piece; peak "
    "peek; peal peel; plain plane; pole poll; poor pour pore; pray prey; principal principle; profit prophet; rain "
    "reign rein; raise rays; rap wrap; read red; read reed; real reel; right write rite; ring wring; road rode rowed; "
    "role roll; root route; rose rows; sail sale; sauce source; saw sore soar; scene seen; sea see; seam seem; seas "
    "sees seize; sew so sow; shoe shoo; side sighed; sole soul; some sum; son sun; stair stare; stake steak; stationary"
    " stationery; steal steel; storey story; suite sweet; tail tale; tea tee; team teem; their there they're; theirs "
    "there's; threw through; throne thrown; tide tied; to too two; toe tow; tire tyre; vain vein vane; wade weighed; "
    "waist waste; wait weight; war wore; ware wear where; warn worn; way weigh; we wee; weak week; weather whether; "
    "weave we've; which witch; whine wine; who's whose; wood would; yoke yolk; you'll yule; your you're"
)

HOMOPHONES: dict[str, frozenset[str]] = {}
"""English words with the same sound: each word with the others of its groups; apostrophes are left out."""

for _group in _HOMOPHONES.split(";"):
    _words = frozenset(word.replace("'", "") for word in _group.split())
    for _word in _words:
        HOMOPHONES[_word] = HOMOPHONES.get(_word, frozenset()) | (_words - {_word})

_ENGLISH_NUMBERS = frozenset(
    {*ONES, *TENS, *MULTIPLIERS, *ONES_SUFFIXED, *TENS_SUFFIXED, *MULTIPLIERS_SUFFIXED, "zero", "zeros", "dozen"}
) - {"one", "ones", "second", "seconds"}
_NUM2WORDS_VALUES = (*range(2, 20), *range(20, 100, 10), 100, 1000)


def function_words(language: str | None, references: Iterable[str]) -> frozenset[str]:
    """The function words of a language; for one without a list, frequent short words of the references.

    Those are the words of at most 4 letters among the 50 most frequent that occur at least 5 times.
    """
    if language in FUNCTION_WORDS:
        return FUNCTION_WORDS[language]
    counts = Counter(word for text in references for word in text.split())
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:50]
    return frozenset(word for word, count in frequent if count >= 5 and len(word) <= 4 and not is_digits(word))


def is_digits(word: str) -> bool:
    """Whether a word has a digit of any script."""
    return any(char.isdigit() for char in word)


@functools.cache
def number_words(language: str | None) -> frozenset[str]:
    """Number words that are one word: English ones from the normaliser's tables, others by num2words if it is there.

    "One" and its like are left out: they are pronouns or articles as well.
    """
    if language in (None, "en"):
        return _ENGLISH_NUMBERS
    try:
        from num2words import num2words

        said = [str(num2words(value, lang=language)).casefold() for value in _NUM2WORDS_VALUES]
    except (ImportError, NotImplementedError, KeyError):
        return frozenset()
    return frozenset(word for word in said if " " not in word)
