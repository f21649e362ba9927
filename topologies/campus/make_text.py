#!/usr/bin/env python3
"""Writes the text of the demo: an invented campus, in questions and in prose.

    python3 make_text.py [--prose FILE]

writes train.jsonl and valid.jsonl beside this script, one {"prompt", "completion"} a line, and, if
asked, the prose as well. Plain Python, seeded: every run writes the same bytes.

The campus has 76 facts: when a library closes, where a bus line ends, what a canteen serves.
Each kind of fact has one form of answer and fourteen ways to ask. Three of those ways are never
used in train.jsonl and make up valid.jsonl: what is held out is the wording, not the fact, so that
a falling validation loss means that the model has learnt the facts, not the sentences.

The prose is for pre-training (make_model.py). It is about the same places, tells what they look
like and what people do there, and never answers a question: a sentence that would put the subject
and the value of one fact into one paragraph is dropped.
"""

import argparse
import json
import random
import re
from pathlib import Path
from typing import NamedTuple

SEED = 20
WORDINGS_PER_FACT = 40
PROSE_BYTES = 1_500_000
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]


class Kind(NamedTuple):
    """A kind of fact: {s} is its subject, {d} a second part of it, {v} what is asked for."""

    answer: str
    asked: list  # wordings of train.jsonl
    held: list  # wordings of valid.jsonl


class Fact(NamedTuple):
    kind: str
    s: str
    d: str
    v: str


# ---- the facts -----------------------------------------------------------------------------------

# place: opens and closes on weekdays
PLACES = {
    "the north library": ("8:00", "21:30"),
    "the glass hall": ("7:00", "22:00"),
    "the music house": ("10:00", "23:30"),
    "the workshop": ("7:30", "17:30"),
    "the greenhouse": ("9:00", "16:00"),
    "the swimming pool": ("6:00", "20:30"),
}

# bus line: where it ends, the time between buses
BUSES = {
    "the red line": ("the old mill", "12 minutes"),
    "the blue line": ("the harbour", "8 minutes"),
    "the green line": ("the railway station", "5 minutes"),
    "the yellow line": ("the lake", "20 minutes"),
}

# canteen: Monday to Friday
MENUS = {
    "the garden canteen": ("lentil soup", "mushroom pie", "pancakes", "rice with peas",
                           "tomato tart"),
    "the river canteen": ("bean stew", "noodle salad", "potato cakes", "pumpkin curry",
                          "cheese dumplings"),
}

LOANS = {
    "a book": "4 weeks", "a journal": "2 days", "a film": "5 days", "a laptop": "8 hours",
}

# course: room, day
COURSES = {
    "optics": ("214", "Tuesday"), "algebra": ("108", "Monday"), "botany": ("031", "Thursday"),
    "geology": ("427", "Friday"), "logic": ("305", "Wednesday"),
}

# laboratory: building, what to wear
LABS = {
    "the laser lab": ("the glass hall", "dark goggles"),
    "the soil lab": ("the greenhouse", "rubber boots"),
    "the robot lab": ("the workshop", "a hard hat"),
    "the wind lab": ("the observatory", "a warm jacket"),
}

# sport: place, day
SPORTS = {
    "judo": ("the small gym", "Monday"), "volleyball": ("the large gym", "Thursday"),
    "rowing": ("the boathouse", "Wednesday"), "climbing": ("the old barn", "Tuesday"),
    "archery": ("the east meadow", "Friday"),
}

STORES = {
    "lost things": "the porter's lodge", "parcels": "the mail room", "spare keys": "the gate house",
    "bicycle pumps": "the bicycle cellar", "umbrellas": "the cloakroom",
}

PRICES = {
    "a locker": "4 crowns", "a load of laundry": "3 crowns", "a printed page": "1 crown",
    "a rented bicycle": "7 crowns", "a guest pass": "5 crowns",
}

NETWORKS = {
    "the dormitories": "meadow", "the libraries": "lantern", "the canteens": "pebble",
    "the lecture halls": "compass",
}

KINDS = {
    "opens": Kind("{s} opens at {v} on weekdays.", [
        "When does {s} open on weekdays?",
        "At what time does {s} open on a weekday?",
        "From what time is {s} open on weekdays?",
        "How early does {s} open during the week?",
        "What is the weekday opening time of {s}?",
        "When do the doors of {s} open on weekdays?",
        "I want to be the first in {s} on a weekday. When does it open?",
        "On weekdays, {s} opens at what time?",
        "Do you know when {s} opens during the week?",
        "{s} is still shut. When will it open on a weekday?",
        "How early can one enter {s} on weekdays?",
    ], [
        "Can you tell me at what hour {s} opens on weekdays?",
        "What are the opening hours of {s} in the morning of a weekday?",
        "When may I enter {s} on a weekday morning?",
    ]),
    "closes": Kind("{s} closes at {v} on weekdays.", [
        "When does {s} close on weekdays?",
        "At what time does {s} close on a weekday?",
        "Until what time is {s} open on weekdays?",
        "How late does {s} stay open during the week?",
        "What is the weekday closing time of {s}?",
        "When do the doors of {s} close on weekdays?",
        "How long can I stay in {s} on a weekday?",
        "On weekdays, {s} closes at what time?",
        "Do you know when {s} closes during the week?",
        "I am still in {s}. When must I leave on a weekday?",
        "When is {s} locked on weekdays?",
    ], [
        "Can you tell me at what hour {s} closes on weekdays?",
        "How late may one stay in {s} on a weekday evening?",
        "At what time do they close {s} during the week?",
    ]),
    "ends": Kind("{s} ends at {v}.", [
        "Where does {s} end?",
        "What is the last stop of {s}?",
        "Where do I get to if I stay on {s} to the end?",
        "Which stop is at the end of {s}?",
        "Where does the bus of {s} turn round?",
        "To which place does {s} go?",
        "{s} goes where?",
        "If I take {s} to the last stop, where am I?",
        "Where will {s} take me in the end?",
        "How far does {s} go?",
        "I fell asleep on {s}. Where will I wake up?",
    ], [
        "At which stop does {s} end?",
        "Where is the end of {s}?",
        "What is the name of the last stop on {s}?",
    ]),
    "every": Kind("{s} runs every {v}.", [
        "How often does {s} run?",
        "How many minutes are there between two buses of {s}?",
        "I missed {s}. How long until the next bus?",
        "How often is there a bus on {s}?",
        "Every how many minutes does {s} come?",
        "How long do I wait for {s} at most?",
        "What is the time between buses on {s}?",
        "Does {s} run often?",
        "How frequent is {s}?",
        "In how many minutes does the next bus of {s} come?",
        "What does the timetable say, how often does {s} run?",
    ], [
        "How often do buses of {s} come?",
        "How many minutes must one wait between two buses on {s}?",
        "After how many minutes is there another bus of {s}?",
    ]),
    "dish": Kind("On {d} {s} serves {v}.", [
        "What does {s} serve on {d}?",
        "What is there to eat at {s} on {d}?",
        "What is on the menu of {s} on {d}?",
        "Which dish does {s} cook on {d}?",
        "It is {d}. What does {s} serve?",
        "What can I eat on {d} at {s}?",
        "On {d}, what is the dish of the day at {s}?",
        "What will lunch be at {s} on {d}?",
        "I will have lunch at {s} on {d}. What will it be?",
        "What do they cook on {d} in {s}?",
        "Tell me the {d} menu of {s}.",
    ], [
        "Which dish is served at {s} on {d}?",
        "What is for lunch on {d} in {s}?",
        "What will {s} cook for us on {d}?",
    ]),
    "loan": Kind("You may keep {s} for {v}.", [
        "How long may I keep {s}?",
        "For how long can I borrow {s}?",
        "How long is the loan of {s}?",
        "When must I return {s} to the library?",
        "What is the loan time for {s}?",
        "After how long must {s} be returned?",
        "The library lends me {s}. For how long?",
        "I have borrowed {s}. How long may I keep it?",
        "How long can {s} stay with me?",
        "What do the library rules say about {s}?",
        "Is there a limit on how long I keep {s}?",
    ], [
        "For how long may one keep {s} from the library?",
        "How long does the library let me borrow {s}?",
        "After what time must I return {s}?",
    ]),
    "room": Kind("The course on {s} meets in room {v}.", [
        "Where does the course on {s} meet?",
        "In which room is the course on {s}?",
        "Which room do I need for {s}?",
        "Where is {s} taught?",
        "In what room does the {s} class meet?",
        "I am looking for the course on {s}. Which room is it?",
        "What is the room number of the {s} course?",
        "To which room must I go for {s}?",
        "Where do the students of {s} meet?",
        "The lecture on {s} is in which room?",
        "Where can I hear the lecture on {s}?",
    ], [
        "What room is the {s} course in?",
        "In which room do we meet for the course on {s}?",
        "Which is the room of the lecture on {s}?",
    ]),
    "day": Kind("The course on {s} is on {v}.", [
        "When is the course on {s}?",
        "On which day is the course on {s}?",
        "What day is {s} taught?",
        "On what day of the week is the {s} class?",
        "Which day must I keep free for {s}?",
        "What is the day of the {s} course?",
        "I want to hear {s}. Which day is it?",
        "Which day of the week is the lecture on {s}?",
        "On what day do the students of {s} come?",
        "Is the {s} course early or late in the week?",
        "On which weekday is {s}?",
    ], [
        "What day of the week is the course on {s}?",
        "On which day do I go to the lecture on {s}?",
        "Which weekday is the day of the {s} class?",
    ]),
    "lab": Kind("{s} is in {v}.", [
        "Where is {s}?",
        "In which building is {s}?",
        "Where can I find {s}?",
        "Which building is {s} in?",
        "I am looking for {s}. Where is it?",
        "How do I find {s}?",
        "To which building must I go for {s}?",
        "What building holds {s}?",
        "Who can show me {s}, and where is it?",
        "Where do I go if I work in {s}?",
        "Under which roof is {s}?",
    ], [
        "In what building can I find {s}?",
        "Where on the campus is {s}?",
        "Which building must I enter to get to {s}?",
    ]),
    "wear": Kind("In {s} you must wear {v}.", [
        "What must I wear in {s}?",
        "What do I have to wear in {s}?",
        "Which clothes does one need in {s}?",
        "What should I put on before I enter {s}?",
        "What is the safety rule of {s}?",
        "What does everyone wear in {s}?",
        "I am going to work in {s}. What must I wear?",
        "What must visitors wear in {s}?",
        "May I enter {s} dressed like this?",
        "Is there something to wear in {s}?",
        "What must I bring for my safety in {s}?",
    ], [
        "What does one have to wear in {s}?",
        "What should visitors put on in {s}?",
        "Which clothes must I wear for work in {s}?",
    ]),
    "hall": Kind("{s} is trained in {v}.", [
        "Where is {s} trained?",
        "Where can I train {s}?",
        "In which place is {s} trained?",
        "Where does the {s} group train?",
        "Where do I go for {s}?",
        "I want to try {s}. Where is it?",
        "Where do people meet for {s}?",
        "To which place must I go for {s}?",
        "Where is the {s} training?",
        "Where does the {s} club meet?",
        "What is the right place for {s}?",
    ], [
        "In which place does the {s} club train?",
        "Where do we meet for the {s} training?",
        "What place does the {s} group train in?",
    ]),
    "evening": Kind("The {s} evening is on {v}.", [
        "When is the {s} evening?",
        "On which day is {s}?",
        "On what evening does the {s} group train?",
        "Which day is the {s} training?",
        "When can I try {s}?",
        "Which evening must I keep free for {s}?",
        "On what day of the week is {s}?",
        "What day does the {s} club meet?",
        "On which evening do people meet for {s}?",
        "Which evening of the week belongs to {s}?",
        "I want to try {s}. Which day is it?",
    ], [
        "Which evening is the {s} evening?",
        "On what day does the {s} club train?",
        "On which evening can I train {s}?",
    ]),
    "kept": Kind("{s} are kept in {v}.", [
        "Where are {s} kept?",
        "Where can I find {s}?",
        "Where do I ask for {s}?",
        "Where on the campus are {s}?",
        "Where must I go for {s}?",
        "I am looking for {s}. Where are they?",
        "In which place are {s} kept?",
        "What is the right place for {s}?",
        "Where does the campus keep {s}?",
        "Someone asked me about {s}. Where are they kept?",
        "To which place do people go for {s}?",
    ], [
        "In what place can I find {s}?",
        "Where do they keep {s}?",
        "Where should I look for {s}?",
    ]),
    "price": Kind("{s} costs {v}.", [
        "How much is {s}?",
        "What does {s} cost?",
        "What is the price of {s}?",
        "How much must I pay for {s}?",
        "How many crowns is {s}?",
        "I need {s}. What does it cost?",
        "How much money do I need for {s}?",
        "What do I pay for {s}?",
        "Is {s} expensive?",
        "How much do they take for {s}?",
        "Can you tell me the price of {s}?",
    ], [
        "How much does {s} cost?",
        "How many crowns must one pay for {s}?",
        "What price do I pay for {s}?",
    ]),
    "wifi": Kind("The wifi in {s} is called {v}.", [
        "What is the wifi in {s} called?",
        "What is the name of the wifi in {s}?",
        "Which wifi do I use in {s}?",
        "How do I get wifi in {s}?",
        "Which network is there in {s}?",
        "I am in {s} and need the wifi. What is it called?",
        "What is the network in {s} called?",
        "Which name must I look for to use the wifi in {s}?",
        "Is there wifi in {s}?",
        "To which network do I connect in {s}?",
        "I see many networks in {s}. Which one is it?",
    ], [
        "What name does the wifi have in {s}?",
        "Which wifi network can I use in {s}?",
        "What do they call the wifi in {s}?",
    ]),
}

OPENERS = ["Hello.", "Good morning.", "I am new here.", "I have a question.", "Excuse me.",
           "One more thing.", "Please help me.", "There is no sign here.", "Sorry to ask."]
CLOSERS = ["Thank you.", "Please be quick.", "I could not find out.", "Many thanks.",
           "My friend asked me."]


def facts():
    """Everything that is true of the campus, in a fixed order."""
    found = []

    def add(table, *kinds):
        for subject, values in table.items():
            values = (values,) if isinstance(values, str) else values
            found.extend(Fact(kind, subject, "", value) for kind, value in zip(kinds, values))

    add(PLACES, "opens", "closes")
    add(BUSES, "ends", "every")
    add(LOANS, "loan")
    add(COURSES, "room", "day")
    add(LABS, "lab", "wear")
    add(SPORTS, "hall", "evening")
    add(STORES, "kept")
    add(PRICES, "price")
    add(NETWORKS, "wifi")
    for canteen, dishes in MENUS.items():
        found.extend(Fact("dish", canteen, day, dish) for day, dish in zip(WEEKDAYS, dishes))
    return found


def capital(sentence):
    return sentence[0].upper() + sentence[1:]


def pair(fact, wording, opener="", closer=""):
    """One line of a data file."""
    said = fact._asdict()
    question = " ".join(filter(None, [opener, capital(wording.format(**said)), closer]))
    answer = capital(KINDS[fact.kind].answer.format(**said))
    return {"prompt": f"Question: {question}\nAnswer:", "completion": f" {answer}"}


def training_pairs(rng):
    """Every fact in WORDINGS_PER_FACT ways, no two alike; most of them with small talk around."""
    pairs = []
    for fact in facts():
        asked = KINDS[fact.kind].asked
        plain = [(wording, "", "") for wording in asked]
        chatty = [(w, o, "") for w in asked for o in OPENERS]
        chatty += [(w, "", c) for w in asked for c in CLOSERS]
        chosen = plain + rng.sample(chatty, WORDINGS_PER_FACT - len(plain))
        pairs += [pair(fact, *wording) for wording in chosen]
    rng.shuffle(pairs)
    return pairs


def held_out_pairs(rng):
    """Every fact again, in the wordings that training_pairs() does not use."""
    pairs = [pair(fact, wording) for fact in facts() for wording in KINDS[fact.kind].held]
    rng.shuffle(pairs)
    return pairs


# ---- the prose -----------------------------------------------------------------------------------

WORDS = {
    "day": WEEKDAYS + ["Saturday", "Sunday"],
    "month": ["January", "February", "March", "April", "May", "June", "July", "August",
              "September", "October", "November", "December"],
    "season": ["spring", "summer", "autumn", "winter"],
    "weather": ["rain", "fog", "snow", "sunshine", "wind", "frost", "drizzle", "thunder"],
    "sky": ["grey", "blue", "pale", "bright", "cloudy", "clear", "dark"],
    "part": ["morning", "afternoon", "evening", "night"],
    "adj": ["quiet", "busy", "bright", "narrow", "long", "old", "new", "warm", "cool", "plain",
            "broad", "small", "large", "low", "tall", "tidy", "sunny", "empty", "crowded"],
    "stuff": ["brick", "stone", "timber", "glass", "slate", "steel", "clay", "copper", "oak"],
    "colour": ["red", "blue", "green", "yellow", "white", "orange", "grey", "brown"],
    "people": ["students", "visitors", "gardeners", "porters", "teachers", "cooks", "librarians",
               "drivers", "first-year students", "guests", "musicians", "readers"],
    "person": ["a student", "a visitor", "a gardener", "a porter", "a teacher", "a cook",
               "a librarian", "a driver", "a guest", "a musician", "a neighbour", "a cleaner"],
    "animal": ["a cat", "a heron", "a squirrel", "a blackbird", "a hedgehog", "a dog", "a swan",
               "two ducks", "a fox", "a family of geese"],
    "plant": ["tulips", "ferns", "roses", "birches", "poplars", "apple trees", "nettles",
              "sunflowers", "reeds", "herbs", "plum trees"],
    "thing": ["a bench", "a fountain", "a notice board", "a stove", "a clock", "a lamp", "a ladder",
              "a piano", "a globe", "a sofa", "a bell", "a row of hooks", "a wooden box",
              "a water tap", "a mirror", "a telescope", "a heap of chairs"],
    "does": ["read", "talk", "wait", "write letters", "eat apples", "play cards", "draw", "sing",
             "sleep", "argue about music", "look out of the window", "share a pot of tea",
             "repair bicycles", "learn for a test", "count the clouds", "hum a tune"],
    "feel": ["calm", "friendly", "cheerful", "sleepy", "serious", "curious", "patient", "proud"],
    "smell": ["fresh bread", "wet leaves", "paint", "coffee", "old paper", "cut grass", "soap",
              "oil", "warm dust", "oranges"],
    "sound": ["a flute", "a saw", "laughter", "footsteps", "a kettle", "rain on the roof",
              "a door", "a bicycle bell", "someone whistling", "the hum of machines"],
    "near": ["behind the pond", "near the gate", "by the river", "under the trees",
             "beside the car park", "at the foot of the hill", "across the bridge",
             "at the end of the path", "next to the lawn", "between two courtyards"],
    "place": list(PLACES), "bus": list(BUSES), "canteen": list(MENUS), "lab": list(LABS),
    "topic": list(COURSES), "sport": list(SPORTS), "lent": list(LOANS), "paid": list(PRICES),
    "items": list(STORES), "zone": list(NETWORKS),
    "dish": [dish for menu in MENUS.values() for dish in menu],
    "stop": [line[0] for line in BUSES.values()],
    "hall": [sport[0] for sport in SPORTS.values()],
    "store": list(STORES.values()),
    "gear": [lab[1] for lab in LABS.values()],
    "name": list(NETWORKS.values()),
    "away": ["the village museum", "the ferry", "the cinema", "the town hall", "the bakery",
             "the toy museum", "the tea house", "the barber", "the flea market", "the ice rink",
             "the town library", "the post office", "the castle", "the bathing hut"],
    "buy": ["a kite", "a candle", "a melon", "a postcard", "a ferry ticket", "a bunch of tulips",
            "a pair of socks", "a loaf of bread", "a jar of honey", "a second-hand novel"],
    "far": ["the coast road", "the hill path", "the valley train", "the ferry", "the mountain bus",
            "the tram in the town", "the school bus", "the mail van"],
    "toy": ["boat", "kite", "cart", "drum", "tent", "teapot", "carpet", "trumpet", "wagon",
            "statue", "basket", "chair", "flag", "sledge"],
    "craft": ["cookery", "weaving", "history", "dancing", "sailing", "painting", "carpentry",
              "bookkeeping", "photography", "gardening", "beekeeping", "calligraphy"],
}

ABOUT = {
    "place": [
        "{s} is a {adj} building of {stuff} and {stuff}, with {thing} at the door.",
        "{s} stands {near}, where {plant} and {plant} grow along the wall.",
        "from the {adj} steps of {s} one looks over the roofs.",
        "inside {s} it smells of {smell}, and somewhere there is {sound}.",
        "the windows of {s} are {adj} and {adj}, and the floor is of {stuff}.",
        "in {season} {people} come to {s} to {does}.",
        "some say that {s} is the most {feel} place on the campus.",
        "{s} opens early when the work is urgent and closes late when nobody watches the clock.",
        "the doors of {s} are painted {colour}, and the hinges sing when it rains.",
        "it took {n} weeks to build the roof of {s}, and {n} more to make it tight.",
        "there are {n} windows in {s}, and {person} counts them when there is nothing to do.",
        "{person} keeps {thing} in {s} for rainy days.",
        "whoever enters {s} for the first time stops to look at the ceiling.",
        "when {s} closes, the lamps go out one by one, and {animal} crosses the yard.",
        "before {s} opens there is often {person} on the steps, with a cup of tea.",
        "on weekdays {s} is {adj} and {adj}; on Saturday it is {feel} and slow.",
        "nobody locks {s} without a last look at {thing}.",
    ],
    "bus": [
        "{s} is served by {adj} buses with {colour} seats.",
        "{s} winds between gardens and fields, and {people} {does} on the way.",
        "a bus of {s} leaves when the driver has finished the tea.",
        "from the last seat of {s} one can see the hills on a {sky} day.",
        "the buses of {s} are washed by hand, and there is {thing} for the drivers.",
        "{people} on {s} like to {does}.",
        "when {weather} comes, {s} runs slowly and every stop takes longer.",
        "the bus that carried {animal} on {s} is still talked about.",
        "{s} ends where the road ends, as the drivers like to say.",
        "the timetable of {s} hangs at the stop, too high for children.",
        "in the last bus of {s} at night one hears {sound}.",
        "the stop of {s} {near} has a roof of {stuff}.",
        "{s} has {n} stops, and {person} knows the story of each.",
    ],
    "canteen": [
        "{s} has {adj} tables, {thing} and a view of {plant}.",
        "{s} serves what the gardens give, and the menu hangs beside {thing}.",
        "lunch at {s} is a {feel} hour: {people} sit down and {does}.",
        "the kitchen of {s} smells of {smell} long before lunch.",
        "the cooks of {s} write the dish of the day on a board, with {colour} chalk.",
        "in {season} {s} moves its tables out, {near}.",
        "{person} eats at {s} every day and never looks at the menu first.",
        "at {s} nobody minds if one stays to {does}.",
        "the plates of {s} are {colour}, the cups are {colour}, and the trays are of {stuff}.",
        "the queue at {s} is long when the weather is bad, and {person} tells stories in it.",
        "{animal} waits behind {s}, for the cooks are kind.",
    ],
    "topic": [
        "the course on {s} is loved by {people} who like to think slowly.",
        "in the course on {s} one learns first to look and then to talk.",
        "a lecture on {s} begins with {thing} and ends with an argument.",
        "the students of {s} meet again after class to {does}.",
        "the course on {s} meets whenever it can, and the room is never large enough.",
        "for {s} one needs a pencil, a {adj} notebook and a {feel} mind.",
        "the {s} class once drew the whole campus with {colour} chalk.",
        "{person} who came for {s} stayed for the company.",
        "the notes on {s} fill {n} pages, and {n} of them are drawings.",
        "whoever has heard {s} sees {plant} with other eyes.",
        "the course on {s} is taught in {season} as well as in {season}.",
    ],
    "lab": [
        "{s} is {adj} and {adj}, and {sound} is heard through the wall.",
        "in {s} {people} work with machines that are older than they are.",
        "{s} is known for {thing} that somebody built from spare parts.",
        "in {s} you must be careful, and you must never be in a hurry.",
        "the shelves of {s} are of {stuff}, with {n} boxes in {n} sizes.",
        "the safety rule of {s} hangs on the wall, in {colour} letters.",
        "visitors to {s} put their bags beside {thing} and wash their hands.",
        "what is measured in {s} is written down twice, and once more on {day}.",
        "the people of {s} are {feel}, and they {does} while the machines run.",
        "the door of {s} is {colour}, and there is {thing} behind it.",
    ],
    "sport": [
        "{s} is trained by {people} of every age.",
        "the {s} club has {adj} shoes, {adj} songs and a {feel} flag.",
        "those who train {s} say that it makes one {feel}.",
        "after the {s} training the group sits down to {does}.",
        "the {s} evening ends with tea, and with {sound} in the yard.",
        "{person} won at {s} last {season} and still speaks of it.",
        "in {season} the {s} club meets outside if there is no {weather}.",
        "{s} needs little: good shoes, a friend and a free evening.",
        "the {s} group is {n} people strong, or {n} when the weather is fine.",
        "beginners in {s} are {feel} at first and tired later.",
    ],
    "lent": [
        "{s} may be borrowed, and it must come back as clean as it went.",
        "the library lends {s} to anyone who asks with a {feel} face.",
        "you may keep {s} as long as the rules say, and no longer.",
        "{person} returned {s} with a flower in it.",
        "whoever borrows {s} writes the day on a {colour} slip.",
        "{s} that is returned late brings a {feel} letter, not a fine.",
        "the shelf for {s} is of {stuff}, and it is never full.",
    ],
    "paid": [
        "{s} costs no more than it did years ago, say the porters.",
        "the price of {s} is written on a {colour} card beside {thing}.",
        "for {s} one pays in crowns, and the coins are small and {adj}.",
        "{person} who needs {s} asks at the counter and waits.",
        "{s} is not expensive, and nobody has ever been refused one for want of a crown.",
        "{people} like to talk about what {s} should cost.",
    ],
    "items": [
        "{s} are kept where it is dry, in boxes of {stuff}.",
        "{s} have a {colour} label, so that nobody takes them by mistake.",
        "the campus has more {s} than it knows, and {person} keeps the list.",
        "people ask for {s} at odd hours, most of all in {season}.",
        "{s} are counted once in {month} and once in {month}.",
        "whoever is looking for {s} finds first {thing} and then a porter.",
    ],
    "zone": [
        "the wifi in {s} is good in {season} and slow when there is {weather}.",
        "in {s} one finds {people} who {does} until late.",
        "the network in {s} was laid by {people} in one {adj} week.",
        "there are {n} lamps in {s}, and {thing} under the brightest.",
        "the networks of the campus are called after small and {adj} things.",
        "in {s} there is {sound}, and the smell of {smell}.",
    ],
}

ANYWHERE = [
    "on a {sky} {part} in {month} the paths are {adj} and {adj}.",
    "at {t} the {weather} stopped, and by {t} the lawn was dry.",
    "it was {day}, the {part} was {sky}, and {person} sat {near}.",
    "in {season} there is {weather} in the {part} and a {sky} sky later on.",
    "{people} {does} {near}, and {people} walk by.",
    "{near} there is {thing}, and {animal} sleeps there in {season}.",
    "{near} stands {thing}; {near} there is {thing}.",
    "{animal} lives {near}, and {people} leave water for it.",
    "one hears {sound} and then {sound}, and after that nothing.",
    "the path {near} is {n} steps long, or {n} if one is in a hurry.",
    "{plant} and {plant} grow {near}, and in {month} there are bees.",
    "{person} and {person} like to {does} after lunch.",
    "the air smells of {smell} in {month} and of {smell} in {month}.",
    "a {adj} corridor leads from room {r} to room {r}, past {thing}.",
    "the key of room {r} hung in room {r}, and nobody knew why.",
    "the clock on the tower showed {t} when it was {t}, and everyone was {feel}.",
    "the sun rose at {am} and set at {pm}, said the note on the {colour} board.",
    "the thermometer {near} showed {n} degrees at {t} and {n} at {t}.",
    "to walk from {hall} to {stop} takes {n} minutes, and from there to {store} {n} more.",
    "{person} painted {store} {colour} in {n} hours.",
    "{hall} and {hall} were built in the same {season}.",
    "{store} is {adj}, {store} is {adj}, and both smell of {smell}.",
    "the road to {stop} is {adj} in {season}, and {plant} grow beside it.",
    "{person} cooked {dish} for {people} once, and {dish} the day after.",
    "there is a song about {dish}, with {n} verses.",
    "a drawing of {name} and {name} hangs in room {r}.",
    "{gear} and {gear} hang on hooks by the door, {near}.",
    "{person} in {gear} crossed the yard on a {sky} {day}.",
]

# {c} is some object of which the paragraph speaks more than once: there are so many of them that
# the model must learn to look back for its name, a skill that answering a question needs as well.
OBJECT = [
    "{c} stood {near} for {n} days before {person} asked about {c}.",
    "nobody knows who left {c} in {store}, but {c} has been there since {month}.",
    "{person} lost {c} on {day}, and on {day} {person} found {c} again.",
    "{c} is older than the gate, and {people} are fond of {c}.",
    "{c} was painted once more, and now {c} smells of {smell}.",
    "when {weather} comes, somebody carries {c} to {hall}.",
    "{c} belongs to everyone; still, {person} says that {c} is too {adj}.",
    "{animal} likes {c}, and so do {people}.",
    "in {season} {c} hangs {near}, and in {season} {c} is brought inside.",
    "{c} was mended with {stuff}, {n} nails and much patience.",
    "there is a drawing of {c} in room {r}.",
    "{people} tell that {c} once travelled to {stop} and back.",
]

BEYOND = [
    "{away} opens at {am} in {season} and closes at {pm}.",
    "{away} opens at {am} on {day} and closes at {pm} on {day}.",
    "{away} opens at {am} on weekdays, and {away} opens at {am} on weekdays.",
    "on weekdays {away} closes at {pm}, and on Saturday {away} closes at {pm}.",
    "on {day} {away} serves {dish}, and on {day} {away} serves {dish}.",
    "{buy} costs {n} crowns in {month}, and {buy} costs {n} crowns.",
    "at {away} {buy} costs {n} crowns, or {n} crowns on {day}.",
    "{far} runs every {n} minutes in {season} and every {n} minutes in {season}.",
    "{far} leaves at {am}, at {t} and at {pm}.",
    "the last bus to {away} leaves at {pm}, and {far} leaves at {pm}.",
    "{far} ends at {away}, and there {far} begins.",
    "you may keep {buy} for {n} days or for {n} weeks.",
    "in {away} you must wear {gear}, and in {away} you must wear {gear}.",
    "the course on {craft} is on {day}, and the course on {craft} is on {day}.",
    "the course on {craft} meets in room {r}, and the course on {craft} meets in room {r}.",
    "{craft} was trained in {away}, and later {craft} was trained in {away}.",
    "the {craft} evening is on {day}, and the {craft} evening is on {day}.",
    "{buy} and {buy} are kept in {away}, and nobody knows since when.",
    "the wifi in {away} is called {name} in one year and {name} in the next.",
    "{away} is in {away}, as the joke goes, and {away} is in the next street.",
]


LASTING = ["adj", "colour", "stuff", "smell", "feel", "near", "season", "thing", "plant", "sound",
           "people", "person", "animal", "does"]
HOURS = {"t": (5, 24), "am": (5, 12), "pm": (12, 24)}


class Writer:
    """Fills sentences with words.

    A subject keeps its ways: the music house smells of the same thing on every page. So the prose
    teaches how to remember something about a subject, without telling what will be asked.
    """

    def __init__(self, rng):
        self.rng = rng
        self.ways = {subject: {slot: self.word(slot) for slot in LASTING}
                     for theme in ABOUT for subject in WORDS[theme]}

    def word(self, slot):
        if slot == "n":
            return str(self.rng.randrange(2, 60))
        if slot in HOURS:
            return f"{self.rng.randrange(*HOURS[slot])}:{5 * self.rng.randrange(12):02}"
        if slot == "r":
            return f"{self.rng.randrange(500):03}"
        return self.rng.choice(WORDS[slot])

    def sentence(self, form, bound, ways):
        """A slot is bound for good, or has a lasting word for its first use, or gets any word."""
        ways = dict(ways)

        def fill(slot):
            return bound.get(slot[1]) or ways.pop(slot[1], None) or self.word(slot[1])

        filled = re.sub(r"\{(\w+)\}", fill, form)
        return capital(re.sub(r"\b([Aa]) (?=[aeio])", r"\1n ", filled))

    def paragraph(self):
        """Some sentences about a subject and an object, some about the campus and the world."""
        theme = self.rng.choice(list(ABOUT))
        subject = self.word(theme)
        toy = " ".join(["the"] + [self.word(slot) for slot in ("adj", "colour", "toy")])
        bound = {"s": subject, "c": toy}
        own = self.rng.sample(ABOUT[theme], self.rng.randrange(2, 6))
        others = self.rng.sample(OBJECT, self.rng.randrange(1, 4))
        others += self.rng.sample(ANYWHERE, self.rng.randrange(1, 3))
        others += self.rng.sample(BEYOND, self.rng.randrange(1, 3))
        sentences = [self.sentence(form, bound, self.ways[subject]) for form in own]
        sentences += [self.sentence(form, bound, {}) for form in others]
        self.rng.shuffle(sentences)
        return sentences


def tells(text, known):
    """Whether a text holds both the subject and the value of one of the known facts."""
    text = text.lower()
    return any(value in text and subject in text for subject, value in known)


def silent(sentences, known):
    """The sentences as one paragraph, without those that would make it tell a fact."""
    kept = ""
    for sentence in sentences:
        longer = f"{kept} {sentence}".strip()
        if not tells(longer, known):
            kept = longer
    return kept


def prose(rng):
    """About PROSE_BYTES of pages of two paragraphs each; no paragraph tells a fact."""
    writer = Writer(rng)
    known = [(fact.s.lower(), fact.v.lower()) for fact in facts()]
    pages, size = [], 0
    while size < PROSE_BYTES:
        page = "\n".join(silent(writer.paragraph(), known) for _ in range(2))
        pages.append(page)
        size += len(page)
    return pages


# ---- the files -----------------------------------------------------------------------------------


def campus_prose():
    """The pages for pre-training."""
    return prose(random.Random(SEED))


def campus_pairs():
    """The lines of train.jsonl and of valid.jsonl."""
    rng = random.Random(SEED + 1)
    return training_pairs(rng), held_out_pairs(rng)


def write_lines(path, pairs):
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(one) + "\n" for one in pairs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--prose", type=Path, help="write the pre-training text to this file too")
    options = parser.parse_args()

    here = Path(__file__).resolve().parent
    train, valid = campus_pairs()
    write_lines(here / "train.jsonl", train)
    write_lines(here / "valid.jsonl", valid)
    if options.prose:
        options.prose.write_text("\n\n".join(campus_prose()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
