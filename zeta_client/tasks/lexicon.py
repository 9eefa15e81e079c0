"""Words that prompts are made of, and the closed set of facts."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS: Final = (
    ("January", 31),
    ("February", 28),
    ("March", 31),
    ("April", 30),
    ("May", 31),
    ("June", 30),
    ("July", 31),
    ("August", 31),
    ("September", 30),
    ("October", 31),
    ("November", 30),
    ("December", 31),
)

PEOPLE: Final = ("Anna", "Ben", "Carla", "David", "Emma", "Farid", "Mia", "Noah", "Olga", "Sam")
THINGS: Final = (
    "apples",
    "books",
    "cards",
    "coins",
    "cookies",
    "eggs",
    "marbles",
    "pencils",
    "shells",
    "stamps",
    "stickers",
    "toys",
)

# one string, as a word per line would bury the rest of the file
WORDS: Final = tuple(
    """
    apple arrow basket beach bird board bottle branch bread bridge brush butter button cable
    candle carpet castle chair cheese circle clock cloud coffee copper corner cotton desert
    dinner doctor dragon dream engine family farmer feather field finger flame flower forest
    frame garden ginger glass guitar hammer harbor honey horse house island jacket jungle kettle
    kitten ladder lemon letter light lizard marble market meadow melon metal mirror monkey
    mountain mouse music needle nest number ocean onion orange oven paint panda paper parrot
    pebble pencil pepper piano pillow planet pocket potato powder puzzle queen rabbit rain
    ribbon river rocket saddle salad school shadow sheep silver snake soap spider spoon spring
    square stone storm street sugar summer table tiger timber tomato tower train tunnel turtle
    valley violin wagon water whale wheel window winter wolf yellow zebra
    """.split()  # noqa: SIM905
)

CAPITALS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "France": "Paris",
        "Germany": "Berlin",
        "Italy": "Rome",
        "Spain": "Madrid",
        "Portugal": "Lisbon",
        "Austria": "Vienna",
        "Greece": "Athens",
        "Norway": "Oslo",
        "Sweden": "Stockholm",
        "Finland": "Helsinki",
        "Denmark": "Copenhagen",
        "Poland": "Warsaw",
        "Hungary": "Budapest",
        "Ireland": "Dublin",
        "Russia": "Moscow",
        "Japan": "Tokyo",
        "China": "Beijing",
        "Egypt": "Cairo",
        "Kenya": "Nairobi",
        "Canada": "Ottawa",
        "Cuba": "Havana",
        "Peru": "Lima",
        "Chile": "Santiago",
        "Turkey": "Ankara",
        "Thailand": "Bangkok",
    }
)
OPPOSITES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "hot": "cold",
        "big": "small",
        "fast": "slow",
        "old": "young",
        "happy": "sad",
        "light": "dark",
        "early": "late",
        "hard": "soft",
        "high": "low",
        "long": "short",
        "rich": "poor",
        "strong": "weak",
        "wet": "dry",
        "full": "empty",
        "open": "closed",
        "loud": "quiet",
        "heavy": "light",
        "clean": "dirty",
        "thick": "thin",
        "first": "last",
        "near": "far",
        "left": "right",
        "up": "down",
        "true": "false",
        "day": "night",
    }
)
COLOURS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "grass": "green",
        "snow": "white",
        "blood": "red",
        "coal": "black",
        "a banana": "yellow",
        "the sky": "blue",
        "a carrot": "orange",
        "an elephant": "grey",
        "chocolate": "brown",
        "a flamingo": "pink",
        "milk": "white",
        "a lemon": "yellow",
        "a tomato": "red",
        "a frog": "green",
    }
)
YOUNG: Final[Mapping[str, str]] = MappingProxyType(
    {
        "dog": "puppy",
        "cat": "kitten",
        "cow": "calf",
        "horse": "foal",
        "sheep": "lamb",
        "pig": "piglet",
        "bear": "cub",
        "duck": "duckling",
        "goose": "gosling",
        "goat": "kid",
        "deer": "fawn",
        "hen": "chick",
    }
)
SOUNDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "dog": "bark",
        "cat": "meow",
        "cow": "moo",
        "duck": "quack",
        "lion": "roar",
        "wolf": "howl",
        "frog": "croak",
        "bee": "buzz",
        "snake": "hiss",
        "horse": "neigh",
    }
)
LEGS: Final[Mapping[str, str]] = MappingProxyType(
    {"dog": "4", "bird": "2", "spider": "8", "ant": "6", "snake": "0", "horse": "4", "crab": "10"}
)
NEXT_DAY: Final[Mapping[str, str]] = MappingProxyType(
    dict(zip(DAYS, DAYS[1:] + DAYS[:1], strict=True))
)

CATEGORIES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "animal": ("tiger", "rabbit", "horse", "eagle", "shark", "mouse", "sheep", "camel"),
        "fruit": ("apple", "banana", "cherry", "grape", "mango", "peach", "pear", "plum"),
        "vegetable": ("carrot", "onion", "potato", "spinach", "cabbage", "leek", "turnip", "pea"),
        "colour": ("red", "blue", "green", "purple", "yellow", "pink", "brown", "grey"),
        "tool": ("hammer", "saw", "drill", "wrench", "chisel", "shovel", "pliers", "rake"),
        "country": ("France", "Japan", "Brazil", "Egypt", "Norway", "Canada", "India", "Peru"),
        "metal": ("iron", "copper", "silver", "tin", "zinc", "lead", "nickel", "steel"),
        "instrument": ("piano", "violin", "guitar", "drum", "flute", "trumpet", "cello", "harp"),
    }
)
