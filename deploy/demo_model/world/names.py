"""Names of everything that can be seen and said in the world, and the rule for the pairs that training never shows."""
import numpy as np

SHAPES = ["circle", "square", "triangle", "star", "cross", "ring", "diamond", "heart"]
COLORS = ["red", "green", "blue", "yellow", "orange", "purple", "pink", "cyan", "white", "black"]
RGB = np.array([[215, 25, 30], [20, 150, 45], [30, 60, 225], [245, 225, 30], [250, 130, 10], [125, 30, 170], [255, 130, 190],
                [40, 215, 225], [248, 248, 248], [14, 14, 14]], np.float32)
DIRS = ["left", "right", "up", "down", "circle"]
DIR_WORDS = ["left", "right", "up", "down", "in a circle"]
CHARS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
WORDS = ("STOP OPEN EXIT CAFE BANK TAXI SALE FISH BIRD MOON STAR SUN CAR BUS DOG CAT HAT MAP KEY BOX RED NORTH SOUTH EAST WEST GATE PARK ZOO "
         "BOOK MILK RICE TEA JAM PEN SHOP FOOD HELP WAIT PLAY ROAD LAKE HILL TREE SNOW RAIN WIND FIRE GOLD IRON HOME").split()
BACKGROUNDS = ["flat", "gradient", "noise", "stripes", "clouds", "photo"]
NOBJ, MAXCH = 6, 5
TYPES = ["color", "shape", "motion", "count", "yesno", "relation", "order", "when", "read", "change", "blink", "size", "absent", "choice",
         "second_turn", "two_clips", "picture_clip", "needle"]
ALL_TYPES = TYPES + ["helper"]     # helper: questions that only training asks


def held_combo(s, c):
    """8 of the 80 (shape, colour) pairs are never shown or named in training."""
    return (3 * s + c) % 10 == 7


def name(o):
    """Full name of an object, by its first colour."""
    return COLORS[o["c"]] + " " + SHAPES[o["s"]]


def plural(s):
    return "crosses" if SHAPES[s] == "cross" else SHAPES[s] + "s"
