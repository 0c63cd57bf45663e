"""The demo's own data: Hebrew words in English sentences, spoken by espeak-ng.

One person's case: English speech with a dozen Hebrew words that a stock recogniser has never been taught to spell
("Makolet" comes out as "mark a let"). The sentences of the splits are disjoint, so a term has to be recognised in a
sentence that was never trained on; ``general`` holds ordinary sentences without any term, to show whether everyday
speech got worse, and among them traps: English words that sound like a term and must stay English.

All sentences were written for speechtune. This file is long because it is mostly those sentences.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechtune.corpus.synthesis import Sentence, plan_corpus, write_corpus
from speechtune.corpus.table import count_by


@dataclass(frozen=True, slots=True)
class Term:
    """A target word or phrase: its one spelling, what it means, and its pronunciation in espeak-ng phonemes."""

    spelling: str
    meaning: str
    phonemes: str


@dataclass(frozen=True, slots=True)
class DemoCorpus:
    """What `build_demo_corpus` made. ``clips`` counts the clips of each split; ``terms`` are the spellings."""

    corpus_dir: Path
    terms: tuple[str, ...]
    clips: dict[str, int]
    seconds_of_audio: float


@dataclass(frozen=True, slots=True)
class DemoSizes:
    """How many clips of each kind to make; ``plain`` are sentences without a term."""

    train_terms: int = 160
    train_plain: int = 60
    dev_terms: int = 30
    dev_plain: int = 10
    test_terms: int = 80
    general: int = 60


TERMS = (
    Term("Makolet", "corner grocery shop", "mA:k'olet"),
    Term("Misrad", "office", "misr'A:d"),
    Term("Teudat Zehut", "identity card", "te?ud'A:t zeh'ut"),
    Term("Bituach Leumi", "national insurance", "bit'uA:x leum'i"),
    Term("Kupat Cholim", "health fund", "kupA:t xol'im"),
    Term("Arnona", "municipal tax", "A:rn'onA:"),
    Term("Mazgan", "air conditioner", "mA:zg'A:n"),
    Term("Sherut", "shared taxi", "Ser'ut"),
    Term("Balagan", "mess", "bA:lA:g'A:n"),
    Term("Chag Sameach", "happy holiday", "xA:g sA:m'eA:x"),
    Term("Iriya", "city hall", "iri:j'A:"),
    Term("Dira", "flat", "di:r'A:"),
)
"""Spelling, meaning, and a pronunciation close to the Hebrew one in sounds that every English voice has."""

PLACES = ("the Makolet", "the Misrad", "Bituach Leumi", "Kupat Cholim", "the Iriya")
"""What ``{place}`` stands for in a template."""

_UNSEEN_VOICES = ("en", "en-gb-x-rp", "en-us+f3", "en-us+m7", "en-us+steph")

VOICES: dict[str, tuple[str, ...]] = {
    "train": ("en-us", "en-us+john", "en-us+Annie", "en-us-nyc", "en+m2", "en+f2", "en+benjamin", "en-029"),
    "dev": ("en-us+Michael", "en-gb-x-gbclan"),
    "test": (*_UNSEEN_VOICES, "en-us", "en+f2"),
    "general": (*_UNSEEN_VOICES, "en+f2"),
}
"""The voices of each split. All were chosen because Whisper tiny.en, untouched, makes 6-17 % word errors on eight
clean everyday sentences in each of them at 160 words a minute; 12 others (among them the Scottish ones) were left out
at 18-38 %."""

TEMPLATES: dict[str, tuple[str, ...]] = {
    "train": (
        "I have to stop by {place} before it closes.",
        "We waited at {place} for almost an hour.",
        "My sister works at {place} near the beach.",
        "Is {place} open on Friday morning?",
        "She left her umbrella at {place} again.",
        "The line at {place} was out the door.",
        "Turn left after {place} and you will see our building.",
        "They told me to come back to {place} tomorrow.",
        "I met an old friend at {place} yesterday.",
        "Can you walk me to {place} after lunch?",
        "We are out of eggs, so run down to the Makolet.",
        "The Makolet on our street sells fresh bread.",
        "He forgot his laptop at the Misrad last night.",
        "Everyone at the Misrad drinks too much coffee.",
        "The Iriya finally fixed the street light.",
        "We asked the Iriya for a parking permit.",
        "I finally got a letter from Bituach Leumi.",
        "You pay Bituach Leumi every month.",
        "I made an appointment with a doctor at Kupat Cholim.",
        "My Kupat Cholim has a very good app.",
        "Do not forget to bring your Teudat Zehut.",
        "I lost my Teudat Zehut on the bus.",
        "What is the number on your Teudat Zehut?",
        "He showed his Teudat Zehut to the guard.",
        "My Teudat Zehut photo looks terrible.",
        "The Misrad needs a copy of your Teudat Zehut.",
        "The Arnona went up again this year.",
        "Did you pay the Arnona for this month?",
        "Students get a discount on Arnona.",
        "Our Arnona is higher than the electric bill.",
        "Please turn on the Mazgan, it is boiling in here.",
        "The Mazgan is dripping on the floor.",
        "A man came to clean the Mazgan today.",
        "I cannot sleep without the Mazgan in summer.",
        "We took a Sherut to the airport.",
        "The Sherut leaves when all the seats are full.",
        "How much is the Sherut to the city?",
        "On Saturday the only way there is a Sherut.",
        "Your room is a complete Balagan.",
        "What a Balagan there was at the station!",
        "I do not want any Balagan at the party.",
        "After the move everything was one big Balagan.",
        "Chag Sameach to you and your family!",
        "I called my aunt to say Chag Sameach.",
        "The children shouted Chag Sameach from the window.",
        "She wrote Chag Sameach on the card.",
        "We found a small Dira close to the park.",
        "The Dira has three rooms and a balcony.",
        "How much do you pay for your Dira?",
        "The new Dira needs a new Mazgan.",
    ),
    "dev": (
        "You can buy stamps across from {place}.",
        "Nobody answered the phone at {place} today.",
        "I will wait for you outside {place} at noon.",
        "Grandpa walks past {place} every evening.",
        "The guard asked to see my Teudat Zehut.",
        "You need a Teudat Zehut to open an account.",
        "I have to ask someone about the Arnona.",
        "The owner pays the Arnona, not the renter.",
        "Leave the Mazgan on for the dog.",
        "The remote for the Mazgan is missing.",
        "My bag is still in the Sherut.",
        "Let us share a Sherut with the neighbors.",
        "Sorry about the Balagan in the kitchen.",
        "The traffic today is a real Balagan.",
        "Say Chag Sameach to your mother from me.",
        "He always says Chag Sameach with a big smile.",
        "They want to paint the whole Dira white.",
        "Is the Dira on the second floor?",
    ),
    "test": (
        "Yesterday I ran into my teacher at {place}.",
        "My father parked right next to {place}.",
        "There is a new clerk at {place}.",
        "Let me know when you get to {place}.",
        "I think {place} is closed for the holiday.",
        "We should go to {place} together next week.",
        "Buy some milk and cheese at the Makolet.",
        "I stayed late at the Misrad to finish the report.",
        "The Iriya is planting trees along the road.",
        "Someone from Bituach Leumi called me this morning.",
        "The nurse at Kupat Cholim was very kind.",
        "Keep your Teudat Zehut in a safe place.",
        "They would not let me in without a Teudat Zehut.",
        "My daughter just got her first Teudat Zehut.",
        "I need to change the address on my Teudat Zehut.",
        "The bill for the Arnona came in the mail.",
        "Why is the Arnona so expensive in this city?",
        "I pay my Arnona twice a year.",
        "Half of my salary goes to rent and Arnona.",
        "It is cold, can you turn off the Mazgan?",
        "The Mazgan in the bedroom makes a strange noise.",
        "We bought a bigger Mazgan for the living room.",
        "He fixed our Mazgan in ten minutes.",
        "The driver of the Sherut was singing.",
        "You can catch a Sherut behind the station.",
        "I fell asleep in the Sherut on the way home.",
        "Is there a Sherut that goes to the hospital?",
        "The kids made a Balagan with the toys.",
        "Who is going to clean up this Balagan?",
        "The meeting turned into a total Balagan.",
        "Everything here is Balagan, but I love it.",
        "We wish you all a Chag Sameach.",
        "My boss sent us a note that said Chag Sameach.",
        "Chag Sameach, and see you after the holiday!",
        "The baker told every customer Chag Sameach.",
        "My cousin is looking for a cheap Dira.",
        "Our Dira gets a lot of sun in the morning.",
        "They sold the Dira and moved to the north.",
        "I forgot the keys inside the Dira.",
    ),
}
"""Carrier sentences; ``{place}`` is filled with each of `PLACES`. No sentence occurs in two splits."""

PLAIN: dict[str, tuple[str, ...]] = {
    "train": (
        "We are going to visit my parents on Sunday afternoon.",
        "Please turn off the lights before you leave the house.",
        "The train to the city was late again this morning.",
        "I need to buy some apples and a loaf of bread.",
        "She finished her homework and went out to play.",
        "Can you call me when you get back from work?",
        "My brother is learning how to drive a truck.",
        "It rained all night, so the garden is very wet.",
        "The coffee in this place is always too strong.",
        "He put the box on the table and opened it.",
        "What time does the movie start tonight?",
        "They have lived in the same house for twenty years.",
        "I could not find my glasses this morning.",
        "The little girl drew a picture of a horse.",
        "You should drink more water when it is hot.",
        "We watched the sun go down over the hills.",
        "There is a letter for you on the kitchen table.",
        "The teacher asked us to read the next chapter.",
        "My phone died in the middle of the call.",
        "He runs five miles every day before breakfast.",
        "The soup needs a little more salt.",
        "Let me know if you need any help.",
        "Our flight was delayed because of the snow.",
        "She plays the piano better than her teacher.",
        "I will see you at the office on Monday.",
        "The doctor told him to rest for a week.",
        "We had fish and rice for dinner last night.",
        "The dog barked at the mailman again.",
        "Could you pass me the butter, please?",
        "The store on the corner closes at nine.",
        "I read a good book about the history of Rome.",
        "The wind blew all the leaves off the tree.",
        "He was too tired to finish his dinner.",
        "My aunt sent me a card for my birthday.",
        "There were a lot of people at the concert.",
        "The bridge is closed until the end of the month.",
        "We need to paint the front door again.",
        "She always sits near the window on the bus.",
        "I forgot to pay the electric bill.",
        "The children are playing in the back yard.",
        "Is there a bank near the hotel?",
        "He spoke slowly so that everyone could understand.",
        "The kitchen is a mess after the party.",
        "They sell fresh fruit at the market on Friday.",
        "My father never goes to sleep before midnight.",
        "We took a taxi because it was raining.",
        "The air conditioner is too loud to sleep.",
        "Happy holidays to you and your family!",
        "Do you have your identity card with you?",
        "The taxes in this town are very high.",
        "I would like to rent an apartment by the sea.",
        "City hall is right behind the library.",
        "The market was full of people buying flowers.",
        "Miss Brown had a meeting at ten.",
        "He came back to our home in May.",
        "She cut the rope and let the boat go.",
        "The music was good and the food was even better.",
        "The wagon had a broken wheel.",
        "You are the best cook in the family.",
        "Nobody knows what happened to the old clock.",
    ),
    "dev": (
        "I think it is going to snow tomorrow.",
        "The cat is asleep on top of the car.",
        "How long did it take you to get here?",
        "We met each other at a wedding in the spring.",
        "He broke his arm when he fell off the ladder.",
        "The bus stops in front of the school.",
        "My neighbor grows tomatoes on her roof.",
        "Please write your name at the top of the page.",
        "She was happy to hear the good news.",
        "The shop was closed, so we went home.",
    ),
    "general": (
        "The weather will be warm and sunny this weekend.",
        "My grandmother makes the best chicken soup.",
        "They missed the last bus and had to walk home.",
        "I would like a table for four people, please.",
        "The new bridge will open at the end of the year.",
        "He opened the window to let in some fresh air.",
        "Our team won the game in the last minute.",
        "She bought a red dress for her sister's wedding.",
        "Could you tell me where the post office is?",
        "The baby slept quietly through the whole night.",
        "We planted carrots and onions in the garden.",
        "I have never been to a country so far away.",
        "The museum is free on the first day of the month.",
        "His car broke down on the way to the airport.",
        "Do you want to go for a walk after dinner?",
        "The water in the lake is very cold today.",
        "My uncle told us a funny story about his boss.",
        "You can leave your coat and shoes by the door.",
        "The price of bread has gone up again.",
        "She wrote a long letter to her best friend.",
        "The students were waiting for the exam to begin.",
        "I heard a strange noise coming from upstairs.",
        "We should leave early to avoid the traffic.",
        "He forgot to bring his lunch to school.",
        "The moon was bright enough to read by.",
        "There is nothing good on television tonight.",
        "They painted the whole house in two days.",
        "My computer is too slow to play this video.",
        "The boy climbed the tree to get his kite.",
        "What would you like to drink with your meal?",
        "The dentist said that my teeth are fine.",
        "A small bird built a nest above our door.",
        "I usually wake up at half past six.",
        "The judge asked him to tell the truth.",
        "We stayed at a cheap hotel near the beach.",
        "Her father works in a factory outside the city.",
        "Please do not talk while the film is playing.",
        "The farmer has ten cows and a very old horse.",
        "I lost my wallet somewhere in the park.",
        "They are building a new hospital across the street.",
        "The knife is sharp, so be careful with it.",
        "She smiled and waved at us from the train.",
        "It takes about an hour to drive there.",
        "The police are looking for a man with a blue hat.",
        "My favorite season is the beginning of autumn.",
        "He spent all of his money on video games.",
        "We could hear the sea from our room.",
        "The cake is still in the oven.",
    ),
}
"""Sentences without any term: the replay in train and dev, and the everyday part of ``general``."""

TRAPS = (
    "The make a lot of money plan did not work.",
    "I miss Rod and his terrible jokes.",
    "Our known address is printed on the form.",
    "You can share it with your friends after class.",
    "The area near the river was flooded.",
    "He has a ballot again this year.",
    "To that I say, who would not agree?",
    "The group at Colin's house was very loud.",
    "The muscle can get stronger with time.",
    "A hug is the same in every language.",
    "Dear Anna, thank you for the lovely flowers.",
    "It was a bit too warm in the room.",
)
"""Part of ``general``: English that sounds like a term (make a lot, miss Rod, area) and has to stay English."""


def build_demo_corpus(out: Path, seed: int = 0, overwrite: bool = False, sizes: DemoSizes | None = None) -> DemoCorpus:
    """Write the demo corpus: splits ``train``, ``dev``, ``test`` (terms) and ``general`` (no terms).

    Args:
        out: the directory to make.
        seed: the same seed gives the same texts, voices and samples.
        overwrite: replace ``out`` if it exists.
        sizes: clips per part; the defaults make 400 clips, about 20 minutes of audio.

    Raises:
        InputError: espeakng-loader is not installed, or ``out`` is not empty or cannot be written.
    """
    sentences = demo_sentences(sizes or DemoSizes(), seed)
    corpus = write_corpus(
        Path(out),
        plan_corpus(sentences, VOICES, seed),
        {term.spelling: term.phonemes for term in TERMS},
        seed,
        overwrite,
        meanings={term.spelling: term.meaning for term in TERMS},
    )
    terms = tuple(term.spelling for term in TERMS)
    return DemoCorpus(corpus.root, terms, count_by(corpus, "split"), corpus.seconds_of_audio)


def demo_sentences(sizes: DemoSizes, seed: int) -> list[Sentence]:
    """The texts of every split in the order of the corpus; each term is the subject equally often within a split."""
    random = np.random.default_rng(seed)
    counts = {"train": sizes.train_terms, "dev": sizes.dev_terms, "test": sizes.test_terms}
    sentences: list[Sentence] = []
    for split, count in counts.items():
        sentences += _term_sentences(split, count, random)
    for split, texts, count in (
        ("train", PLAIN["train"], sizes.train_plain),
        ("dev", PLAIN["dev"], sizes.dev_plain),
    ):
        sentences += [Sentence(text, split) for text in _deal(texts, count, random)]
    kinds = dict.fromkeys(PLAIN["general"], "plain") | dict.fromkeys(TRAPS, "trap")
    sentences += [Sentence(text, "general", kind=kinds[text]) for text in _deal(list(kinds), sizes.general, random)]
    return sentences


def filled_templates(split: str) -> tuple[str, ...]:
    """Every sentence the templates of a split can make."""
    return tuple(
        filled
        for template in TEMPLATES[split]
        for filled in (
            [template.replace("{place}", place) for place in PLACES] if "{place}" in template else [template]
        )
    )


def terms_in(text: str, terms: Sequence[Term] = TERMS) -> tuple[str, ...]:
    """The spellings of the terms that occur in ``text`` as whole words, in the order of ``terms``."""
    return tuple(term.spelling for term in terms if re.search(rf"\b{re.escape(term.spelling)}\b", text))


def _term_sentences(split: str, count: int, random: np.random.Generator) -> list[Sentence]:
    by_term: dict[str, list[str]] = {term.spelling: [] for term in TERMS}
    for text in filled_templates(split):
        for term in terms_in(text):
            by_term[term].append(text)
    chosen = []
    for index, texts in enumerate(by_term.values()):
        share = count // len(by_term) + (index < count % len(by_term))
        chosen += _deal(texts, share, random)
    return [Sentence(text, split, terms_in(text), "term") for text in chosen]


def _deal(texts: Sequence[str], count: int, random: np.random.Generator) -> list[str]:
    """``count`` texts in random order, all of them before any occurs again."""
    dealt: list[str] = []
    while len(dealt) < count:
        dealt += [texts[index] for index in random.permutation(len(texts))]
    return dealt[:count]
