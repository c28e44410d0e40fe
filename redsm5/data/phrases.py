"""The sentences of synthetic posts. All are invented, plain and restrained; no real post was used.

`{term}` is a symptom's own vocabulary; all sentences share the other slots. A symptom's `absent` sentences use the same
terms about other people, about the past or in a denial, so that a term alone does not reveal the label.
"""

from typing import NamedTuple


class Phrases(NamedTuple):
    """One symptom's vocabulary, sentences in which it is present, and sentences in which it is absent."""

    terms: tuple[str, ...]
    present: tuple[str, ...]
    absent: tuple[str, ...]


SLOTS = {
    "time": (
        "lately", "for weeks", "since the spring", "these days", "for two months", "almost every day",
        "since I moved", "most of the time", "this whole winter", "since last month",
    ),
    "person": (
        "brother", "sister", "mother", "roommate", "neighbor", "cousin", "friend", "coworker", "uncle", "boss",
    ),
    "place": ("station", "library", "office", "market", "kitchen", "park", "garage", "workshop", "school", "harbor"),
    "thing": ("bike", "printer", "laptop", "radio", "camera", "guitar", "lamp", "car", "phone", "bookshelf"),
    "day": ("Monday", "Tuesday", "Thursday", "Friday", "Saturday", "Sunday", "yesterday", "last week"),
    "topic": ("football", "gardening", "chess", "trains", "a card game", "the new series", "cooking", "old maps"),
    "number": ("two", "three", "four", "five", "six", "ten", "twenty"),
}  # fmt: skip

SYMPTOM_PHRASES = {
    "DEPRESSED_MOOD": Phrases(
        ("sad", "hopeless", "gloomy", "tearful", "miserable", "empty inside", "downhearted"),
        (
            "I have felt {term} {time}.",
            "It's hard to say why, but I'm {term} from morning to evening.",
            "{time}, I've been so {term} that I cry without a reason.",
            "I wake up {term} and it doesn't lift all day.",
            "Everything makes me {term}, even good news.",
        ),
        (
            "My {person} was {term} after the match, but that passed quickly.",
            "I used to be {term} as a teenager and I'm glad that's over.",
            "I wouldn't say that I'm {term}, just a little bored.",
        ),
    ),
    "WORTHLESSNESS": Phrases(
        ("worthless", "a failure", "a burden", "useless", "guilty", "ashamed of myself", "not good enough"),
        (
            "I feel {term}, whatever I do.",
            "{time}, I can't stop thinking that I'm {term}.",
            "I'm {term} and I blame myself for all of it.",
            "Deep down I know that I'm {term} compared to everyone else.",
            "People are kind, but to me it's clear that I'm {term}.",
        ),
        (
            "My {person} called the referee {term}, which I found unfair.",
            "Nobody should be told that they are {term} over a typo.",
            "I once thought I was {term} at this, and now I teach it.",
        ),
    ),
    "SUICIDAL_THOUGHTS": Phrases(
        ("not wanting to live", "ending my life", "suicide", "not being here anymore", "wanting to die"),
        (
            "{time}, I have had thoughts of {term}.",
            "I keep thinking about {term} and it scares me.",
            "The thought of {term} comes back {time}.",
            "I haven't told my {person} that I think about {term}.",
        ),
        (
            "The film deals with {term}, so check the warning first.",
            "I've never thought about {term}, to be clear.",
            "Our training at the {place} covered how to talk with someone about {term}.",
        ),
    ),
    "FATIGUE": Phrases(
        ("exhausted", "drained", "worn out", "tired to the bone", "out of energy", "fatigued"),
        (
            "I'm {term} {time}, even after doing nothing.",
            "Showering leaves me {term} for the rest of the day.",
            "{time}, I've been {term} before the day begins.",
            "I'm so {term} that small chores take hours.",
        ),
        (
            "We were {term} after the hike, in the best possible way.",
            "My {person} came home {term} from the night shift.",
            "I'm not {term} anymore since I changed jobs.",
        ),
    ),
    "ANHEDONIA": Phrases(
        ("no interest in", "no pleasure in", "no joy in", "no excitement about", "lost all desire for"),
        (
            "I have {term} anything that I used to love.",
            "There's {term} {topic} for me, and it was my favorite thing.",
            "{time}, I find {term} seeing people or going out.",
            "It's all flat, I feel {term} music, food or company.",
        ),
        (
            "My {person} has {term} {topic}, so I go alone and enjoy it.",
            "I have {term} the new update, the old version is more fun.",
            "I had {term} {topic} at first, now I can't get enough of it.",
        ),
    ),
    "SLEEP_ISSUES": Phrases(
        ("insomnia", "sleepless nights", "trouble falling asleep", "waking at four", "restless sleep", "oversleeping"),
        (
            "I've had {term} {time}.",
            "It's {term} again, {number} nights in a row.",
            "{time}, the {term} won't stop and I lie awake until dawn.",
            "Because of {term}, I never feel rested in the morning.",
        ),
        (
            "The {term} ended when I bought a better mattress.",
            "My {person} complains about {term} because of the baby.",
            "I read an article about {term}, though I sleep well myself.",
        ),
    ),
    "COGNITIVE_ISSUES": Phrases(
        ("concentrate", "focus", "remember what I read", "make decisions", "think clearly", "follow a conversation"),
        (
            "I can't {term} {time}.",
            "My mind is in a fog and I'm unable to {term}.",
            "{time}, it's impossible to {term}, even for simple tasks.",
            "I struggle to {term} and keep losing the thread.",
        ),
        (
            "The new desk helps me to {term} at the {place}.",
            "My {person} can't {term} while the {thing} is on.",
            "With music on, it's easy for me to {term}.",
        ),
    ),
    "APPETITE_CHANGE": Phrases(
        ("appetite", "hunger", "eating", "weight", "meals"),
        (
            "My {term} has changed a lot {time}, and I can't finish a plate.",
            "{time}, I've lost control over my {term} and nothing tastes right.",
            "I skip food for days because my {term} is all wrong.",
            "My clothes don't fit anymore since my {term} went strange.",
        ),
        (
            "My {person} tracks {term} with an app for the race.",
            "My {term} is fine, the doctor only asked to be sure.",
            "We planned the {term} for the trip on {day}.",
        ),
    ),
    "PSYCHOMOTOR": Phrases(
        ("slowed down", "restless", "fidgety", "moving in slow motion", "pacing the room", "unable to sit still"),
        (
            "I'm {term} {time}, and others have noticed it.",
            "My body feels {term}, as if it weren't mine.",
            "{time}, I've been {term}, and even my speech is different.",
            "My {person} asked why I'm {term} all evening.",
        ),
        (
            "The dog was {term} before the storm.",
            "My {person} is {term} before every exam, it's a habit.",
            "The team looked {term} on {day}, and they still won.",
        ),
    ),
}

SPECIAL_SENTENCES = (
    "I was told that it might be an anxiety disorder.",
    "My {person} thinks that I should see a specialist about the panic attacks.",
    "The doctor changed the dose on {day} and we will see how it goes.",
)

FILLERS = (
    "I went to the {place} with my {person} on {day}.",
    "The {thing} is still broken and nobody at the {place} can repair it.",
    "My {person} and I talked about {topic} for {number} hours.",
    "Does anyone here know a good book about {topic}?",
    "We took the train to the {place}, and it was late again.",
    "I bought a used {thing} for {number} dollars.",
    'My {person} said "maybe later" and left.',
    "It rained on {day}, so we stayed at the {place}.",
    "There were {number} people in front of me at the {place}.",
    "I'm writing this on my phone, sorry for the format.",
    "The {place} is closed on {day}, which I didn't know.",
    "Some of you asked about the {thing}, so here's the story.",
    "I started with {topic} when my {person} gave me a {thing}.",
    "Our rent went up by {number} percent, and the {thing} needs a repair.",
    "It's about {topic}, more or less.",
    "My {person} doesn't like {topic}, but that's fine.",
    "I moved the {thing} to the {place} and took some pictures.",
    "Last {day} the power went out at the {place}.",
    "Then my {person} called, and we had to start again.",
    "I've read the rules, and I hope that this is the right place to ask.",
    "What would you do with {number} days off and a {thing}?",
    "The second part was better than the first, in my opinion.",
    "We're {number} people in the group, and we meet on {day}.",
    "Anyway, that's how the {thing} ended up at the {place}.",
)
