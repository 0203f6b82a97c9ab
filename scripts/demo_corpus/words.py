"""Words and numbers that skills and stories are made of."""

WORDS = (
    "apple", "bread", "river", "stone", "cloud", "green", "yellow", "table", "window", "garden",
    "paper", "silver", "music", "winter", "summer", "orange", "butter", "candle", "forest",
    "bridge", "castle", "dragon", "flower", "guitar", "hammer", "island", "jacket", "kitten",
    "ladder", "mirror", "needle", "ocean", "pencil", "queen", "rabbit", "spider", "tiger",
    "umbrella", "violin", "whale", "zebra", "anchor", "basket", "camera", "desert", "engine",
    "feather", "glass", "honey", "iron", "jungle", "kettle", "lemon", "mountain", "night",
    "olive", "planet", "quiet", "rocket", "sugar", "train", "uncle", "valley", "water", "yard",
    "alpha", "beta", "gamma", "delta", "blue", "red", "purple", "black", "white", "moon",
    "star", "sun", "rain", "snow", "wind", "fire", "earth", "tree", "leaf", "root", "bird",
    "fish", "horse", "dog", "cat", "mouse", "bear", "fox", "wolf", "owl", "duck", "sheep",
    "goat", "cow", "pig", "ball", "box", "book", "chair", "door", "house", "lamp", "map",
    "node", "peer", "block", "token", "swarm", "span", "route", "hop", "page", "cache", "key",
    "lock", "light", "road", "ship", "shoe", "song", "spoon", "tent", "tower", "wagon", "wheel",
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "happy",
    "sad", "fast", "slow", "big", "small", "old", "young", "warm", "cold", "soft", "hard",
    "sweet", "sour", "round", "flat", "early", "late",
)  # fmt: skip

NAMES = (
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Hugo", "Ida", "Jonas", "Kim",
    "Lena", "Max", "Nora", "Oscar", "Paula", "Ravi", "Sara", "Tom", "Uma", "Vera", "Will",
    "Yara", "Zoe", "Alex", "Mia", "Leo", "Maya", "Noah", "Lily", "Omar", "Ali", "Sofia",
    "Peter", "Maria", "Jack", "Lucy",
)  # fmt: skip

NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen", "twenty",
)  # fmt: skip

DAYS = (
    "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday",
)  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip

OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("up", "down"), ("left", "right"),
    ("day", "night"), ("black", "white"), ("old", "new"), ("happy", "sad"), ("open", "closed"),
    ("hard", "soft"), ("full", "empty"), ("early", "late"), ("light", "dark"), ("high", "low"),
    ("long", "short"), ("strong", "weak"), ("rich", "poor"), ("good", "bad"), ("near", "far"),
    ("wet", "dry"), ("loud", "quiet"), ("first", "last"), ("young", "old"), ("clean", "dirty"),
    ("start", "stop"), ("in", "out"), ("yes", "no"), ("true", "false"), ("thick", "thin"),
    ("sweet", "sour"), ("deep", "shallow"), ("cheap", "expensive"), ("inside", "outside"),
    ("always", "never"),
)  # fmt: skip

COLOURS = {
    "the sky": "blue", "grass": "green", "snow": "white", "a banana": "yellow", "blood": "red",
    "coal": "black", "the sea": "blue", "a lemon": "yellow", "a tomato": "red",
    "a leaf": "green", "milk": "white", "a carrot": "orange", "the night": "black",
    "the sun": "yellow", "a strawberry": "red", "a frog": "green",
}  # fmt: skip

SOUNDS = {
    "cat": "meow", "dog": "woof", "cow": "moo", "duck": "quack", "sheep": "baa", "pig": "oink",
    "bird": "tweet", "lion": "roar", "bee": "buzz", "frog": "ribbit", "mouse": "squeak",
}  # fmt: skip
