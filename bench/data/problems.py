"""Questions with numbers for the bench of decontamination: twelve kinds, each of a few templates filled by chance.

They were written before the detector had seen any of them, and no setting is chosen by them.
"""

from __future__ import annotations

import calendar
import random
from collections.abc import Callable
from datetime import date, timedelta
from math import comb
from statistics import median

Question = tuple[str, str]
"""(Question, answer)."""

PEOPLE = [
    "Amara",
    "Bruno",
    "Chiyo",
    "Dmitri",
    "Elif",
    "Farid",
    "Greta",
    "Hamid",
    "Ingrid",
    "Jonas",
    "Kavya",
    "Leila",
    "Marcus",
    "Nadia",
    "Oscar",
    "Priya",
    "Quentin",
    "Rosa",
    "Stefan",
    "Tuva",
]
TOWNS = [
    "Aarhus",
    "Bergen",
    "Cádiz",
    "Dover",
    "Esbjerg",
    "Freiburg",
    "Girona",
    "Halifax",
    "Izmir",
    "Jaipur",
    "Kraków",
    "Lugano",
    "Malmö",
    "Nantes",
    "Ostrava",
    "Porto",
]
GOODS = [
    "bicycle",
    "greenhouse",
    "piano",
    "sailing boat",
    "lathe",
    "harvester",
    "telescope",
    "kiln",
    "printing press",
    "caravan",
    "milking robot",
    "sauna",
]
MONTHS = calendar.month_name[1:]


def kinematics(rng: random.Random) -> Question:
    """Bodies that are thrown, slide or brake."""
    thing = rng.choice(
        ["brass ball", "sandbag", "wet sponge", "hailstone", "steel bolt", "ripe melon", "curling stone", "toy rocket"]
    )
    place = rng.choice(
        ["a lighthouse", "the rim of a quarry", "a bridge over the gorge", "a hot-air balloon", "the crane's boom"]
    )
    speed, height, time = rng.randint(3, 60), rng.randint(5, 240), rng.randint(2, 19)
    mass, mu = rng.randint(10, 950) / 10, rng.randint(5, 80) / 100
    return rng.choice([
        (f"From {place}, {height} m above the water, a {thing} is thrown straight up at {speed} m/s. Taking g = 9.81 m/s² and ignoring the air, after how many seconds does it strike the surface?",
         f"{(speed + (speed**2 + 2 * 9.81 * height) ** 0.5) / 9.81:.2f}"),
        (f"A {thing} of mass {mass} kg slides over ice with a coefficient of kinetic friction of {mu}. It leaves the hand at {speed} m/s. How far does it travel before it comes to rest?",
         f"{speed**2 / (2 * mu * 9.81):.2f}"),
        (f"Starting from rest, a {thing} gains {speed} m/s of velocity in {time} s at constant acceleration. What net force, in newtons, acts on its {mass} kg?",
         f"{mass * speed / time:.2f}"),
    ])  # fmt: skip


def conversion(rng: random.Random) -> Question:
    """One unit in another."""
    amount = rng.randint(11, 9800) / 10
    what, old, new, factor = rng.choice([
        ("the tank of an old tractor holds", "imperial gallons", "litres", 4.54609),
        ("the survey gives the pasture as", "acres", "hectares", 0.404686),
        ("the boiler's gauge stands at", "pounds per square inch", "kilopascals", 6.894757),
        ("a steamer's log has for that night a run of", "nautical miles", "kilometres", 1.852),
        ("the label on the crate of apricots says", "pounds", "kilograms", 0.45359237),
        ("a day's ration in the expedition's book is", "kilocalories", "kilojoules", 4.184),
    ])  # fmt: skip
    who = rng.choice(PEOPLE)
    return rng.choice([
        (f"In {who}'s notes {what} {amount} {old}. How many {new} is that, to the nearest tenth?", f"{amount * factor:.1f}"),
        (f"Convert for {who}: {what} {amount} {old}; state it in {new} and round to one decimal place.", f"{amount * factor:.1f}"),
    ])  # fmt: skip


def interest(rng: random.Random) -> Question:
    """Loans, savings and discounts."""
    who, town, good = rng.choice(PEOPLE), rng.choice(TOWNS), rng.choice(GOODS)
    money, percent, years = 50 * rng.randint(12, 1900), rng.randint(5, 140) / 10, rng.randint(2, 25)
    grown = money * (1 + percent / 100) ** years
    return rng.choice([
        (f"{who} borrows ${money:,} in {town} to buy a {good}. The bank adds {percent} % compound interest at the end of each of {years} years, and nothing is paid back before. What is owed then?",
         f"{grown:.2f}"),
        (f"A {good} that cost €{money:,} loses {percent} % of its value a year. What will {who} get for it in {town} after {years} years?",
         f"{money * (1 - percent / 100) ** years:.2f}"),
        (f"At a shop in {town} a {good} is marked {money:,} crowns. {who} has a voucher of {years} % and the till adds {percent} % tax after it. What does the receipt say?",
         f"{money * (1 - years / 100) * (1 + percent / 100):.2f}"),
    ])  # fmt: skip


def dates(rng: random.Random) -> Question:
    """Dates some days apart."""
    day = date(rng.randint(1750, 2090), 1, 1) + timedelta(rng.randrange(365))
    apart, who = rng.randint(15, 999), rng.choice(PEOPLE)
    event = rng.choice(
        [
            "the lease on the workshop began",
            "the comet was first seen",
            "the bridge was closed",
            "quarantine was lifted",
            "the strike broke out",
            "the archive opened",
        ]
    )
    other = day + timedelta(apart)
    return rng.choice([
        (f"According to {who}, {event} on {day.day} {MONTHS[day.month - 1]} {day.year}. Which date was {apart} days later?", other.isoformat()),
        (f"{who} knows that {event} on {day.isoformat()} and that it was over on {other.isoformat()}. How many days are there between the two?", str(apart)),
        (f"If {event} on {MONTHS[day.month - 1]} {day.day}, {day.year}, what day of the week does {who} write into the chronicle?", calendar.day_name[day.weekday()]),
    ])  # fmt: skip


def program(rng: random.Random) -> Question:
    """A few lines of Python with constants."""
    name, total = (
        rng.choice(["total", "acc", "score", "level", "depth", "energy"]),
        rng.choice(["items", "rows", "beans", "coins", "nodes"]),
    )
    a, b, c, n = rng.randint(2, 99), rng.randint(2, 99), rng.randint(3, 17), rng.randint(4, 40)
    values = [rng.randint(1, 99) for _ in range(rng.randint(4, 9))]
    looped = a
    for at in range(n):
        looped = (looped * c + at) % (b + 100)
    return rng.choice([
        (f"What does this program print?\n\n{name} = {a}\nfor i in range({n}):\n    {name} = ({name} * {c} + i) % {b + 100}\nprint({name})\n", str(looped)),
        (f"Given the function below, what is f({n})?\n\ndef f(x):\n    {name} = {a} * x\n    if {name} > {10 * b}:\n        return {name} - {b}\n    return {name} // {c}\n",
         str(a * n - b if a * n > 10 * b else a * n // c)),
        (f"Predict the output of the snippet.\n\n{total} = {values}\n{name} = sum(v for v in {total} if v % {c} != 0)\nprint({name} - {a})\n", str(sum(v for v in values if v % c) - a)),
    ])  # fmt: skip


def table(rng: random.Random) -> Question:
    """A small table and a question about it."""
    towns = rng.sample(TOWNS, rng.randint(3, 6))
    head = rng.choice(
        [
            ("Arrivals", "Departures"),
            ("Rainfall mm", "Sunshine h"),
            ("Births", "Deaths"),
            ("Sold", "Returned"),
            ("Home wins", "Away wins"),
        ]
    )
    rows = [(town, rng.randint(3, 990), rng.randint(3, 990)) for town in towns]
    body = "\n".join(f"| {town} | {first} | {second} |" for town, first, second in rows)
    grid = f"| Town | {head[0]} | {head[1]} |\n|---|---|---|\n{body}\n\n"
    low, (town, first, second) = rng.randint(50, 800), rng.choice(rows)
    return rng.choice([
        (f"{grid}How many towns of the table have more than {low} in the column {head[0]}?", str(sum(row[1] > low for row in rows))),
        (f"{grid}By how much do {head[0]} and {head[1]} differ in {town}?", str(abs(first - second))),
        (f"{grid}What is the mean of the column {head[1]}?", f"{sum(row[2] for row in rows) / len(rows):.2f}"),
    ])  # fmt: skip


def solids(rng: random.Random) -> Question:
    """Figures and solids with measures, and points of the plane."""
    a, b, c = rng.randint(3, 85), rng.randint(3, 85), rng.randint(3, 85)
    x, y, u, v = (rng.randint(-40, 40) for _ in range(4))
    stuff = rng.choice(["oak", "marble", "beeswax", "aluminium", "ice", "cork"])
    return rng.choice([
        (f"A block of {stuff} is {a} cm long, {b} cm wide and {c} cm high. A hole with a square cross-section of side 2 cm is cut along its length. What volume of {stuff} is left?", str(a * (b * c - 4))),
        (f"A cone is turned from {stuff}. Its base has a radius of {a} mm and its slant height is {a + b} mm. Find the area of its curved surface in terms of π.", f"{a * (a + b)}π"),
        (f"In the coordinate plane, points P({x}, {y}) and Q({u}, {v}) are the ends of a diameter of a circle. Give the square of its radius.", str(((x - u) ** 2 + (y - v) ** 2) / 4)),
        (f"The parallel sides of a trapezium of {stuff} measure {a} cm and {b} cm, and they are {c} cm apart. Calculate its area in square centimetres.", str((a + b) * c / 2)),
    ])  # fmt: skip


def recipe(rng: random.Random) -> Question:
    """Cooking for more people, with numerals in letters and fractions too."""
    dish = rng.choice(
        ["plum dumplings", "fish soup", "lentil stew", "rye bread", "saffron rice", "walnut strudel", "bean salad"]
    )
    few, many = rng.choice(["two", "three", "four", "five", "six", "eight"]), rng.randint(9, 75)
    flour, milk, half = 5 * rng.randint(10, 180), 5 * rng.randint(8, 150), rng.choice(["1/2", "3/4", "1 1/2", "2 1/3"])
    who = rng.choice(PEOPLE)
    people = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "eight": 8}[few]
    return rng.choice([
        (f"{who}'s {dish} for {few} people take {flour} g of flour, {milk} ml of milk and {half} teaspoons of salt. How much flour is needed for {many} guests?", f"{flour * many / people:.0f}"),
        (f"To serve {many} people, {who} multiplies a recipe for {dish} that is written for {few}. It calls for {milk} ml of stock and {flour} g of butter. How many millilitres of stock go into the pot?", f"{milk * many / people:.0f}"),
    ])  # fmt: skip


def solution(rng: random.Random) -> Question:
    """Concentrations and dilutions."""
    salt, mass = rng.choice(
        [
            ("sodium chloride", 58.44),
            ("potassium nitrate", 101.1),
            ("copper sulfate", 159.61),
            ("glucose", 180.16),
            ("magnesium chloride", 95.21),
        ]
    )
    gram, volume, strong = rng.randint(10, 990) / 10, 5 * rng.randint(5, 400), rng.randint(11, 120) / 10
    weak = rng.randint(1, 10) / 10
    return rng.choice([
        (f"A chemist dissolves {gram} g of {salt} (molar mass {mass} g/mol) in water and fills up to {volume} mL. What is the molarity of the solution?", f"{gram / mass / volume * 1000:.3f}"),
        (f"What volume of a {strong} M stock of {salt} must be diluted with water to obtain {volume} mL of a {weak} M solution?", f"{weak * volume / strong:.1f}"),
    ])  # fmt: skip


def urns(rng: random.Random) -> Question:
    """Chances with small numbers."""
    first, second = rng.sample(["amber", "violet", "striped", "glass", "wooden", "chipped", "silver", "mottled"], 2)
    a, b, n = rng.randint(2, 30), rng.randint(2, 30), rng.randint(2, 5)
    who = rng.choice(PEOPLE)
    n = min(n, a)
    return rng.choice([
        (f"A bag holds {a} {first} and {b} {second} marbles. {who} draws {n} of them without putting any back. What is the probability that all are {first}?", f"{comb(a, n)}/{comb(a + b, n)}"),
        (f"{who} shuffles {a} {first} cards with {b} {second} ones and deals {n}. In how many ways can the hand consist of {first} cards only?", str(comb(a, n))),
    ])  # fmt: skip


def timetable(rng: random.Random) -> Question:
    """Clock times and legs of a journey."""
    start, end = rng.sample(TOWNS, 2)
    leave, ride, wait = rng.randint(240, 1200), rng.randint(12, 400), rng.randint(3, 95)
    kind, who = rng.choice(["ferry", "night train", "coach", "tram", "post bus", "hydrofoil"]), rng.choice(PEOPLE)
    clock = f"{leave // 60:02}:{leave % 60:02}"
    arrive = (leave + ride) % 1440
    return rng.choice([
        (f"The {kind} from {start} to {end} leaves at {clock} and takes {ride} minutes, but today it is {wait} minutes late from the start. When does {who} get to {end}?",
         f"{(leave + ride + wait) % 1440 // 60:02}:{(leave + ride + wait) % 60:02}"),
        (f"{who} takes the {clock} {kind} at {start} and arrives in {end} at {arrive // 60:02}:{arrive % 60:02} on the same clock. How long is the ride in minutes?", str(ride)),
    ])  # fmt: skip


def readings(rng: random.Random) -> Question:
    """A list of measurements."""
    what, unit = rng.choice(
        [
            ("the tide gauge", "cm"),
            ("a beekeeper's scale", "kg"),
            ("the seismograph", "mm"),
            ("a pulse oximeter", "beats"),
            ("the anemometer", "km/h"),
            ("a rain barrel's dipstick", "mm"),
        ]
    )
    values, who = [rng.randint(10, 180) for _ in range(rng.choice((5, 7, 9, 11)))], rng.choice(PEOPLE)
    listed = ", ".join(map(str, values))
    return rng.choice([
        (f"{who} reads {what} {len(values)} times and writes down {listed} ({unit}). What is the median of the readings?", str(median(values))),
        (f"These are the readings of {what} in {unit}, as {who} took them: {listed}. Find their range.", str(max(values) - min(values))),
    ])  # fmt: skip


KINDS: dict[str, Callable[[random.Random], Question]] = {
    made.__name__: made
    for made in (kinematics, conversion, interest, dates, program, table, solids, recipe, solution, urns, timetable, readings)
}  # fmt: skip


def questions(kind: str, count: int, seed: int = 0) -> list[Question]:
    """`count` different questions of a kind, the same ones every time."""
    rng = random.Random(f"{kind} {seed}")
    found: dict[str, str] = {}
    while len(found) < count:
        found.setdefault(*KINDS[kind](rng))
    return list(found.items())
