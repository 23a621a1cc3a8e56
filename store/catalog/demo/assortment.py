"""What the demo shop sells: categories, brands and the weight that each has in a price. Data only."""

from dataclasses import dataclass

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Category:
    """One category of products."""

    name: str
    department: str  # brands sell in departments
    base_price: float  # of one reference item of a brand of level 1
    unit: str  # "Ounce", "Fl Oz" or "Count"
    sizes: tuple[float, ...]  # of one item, in `unit`
    reference_size: float
    elasticity: float  # of price in size
    plain_shape: str  # the package, see packages.py
    rich_shape: str  # the dearer package: seen in the image only
    items: dict[str, float]  # item name -> price factor
    varieties: dict[str, Color]  # flavour or kind -> the colour that stands for it; no price factor


PANTRY, DRINKS, CARE = "pantry", "drinks", "care"

AMBER, BROWN, COCOA, CREAM = (214, 142, 38), (122, 76, 44), (84, 50, 34), (226, 204, 160)
RED, CRIMSON, PINK, ORANGE = (200, 52, 44), (150, 28, 52), (226, 130, 152), (232, 126, 40)
YELLOW, LIME, GREEN, FOREST = (238, 192, 52), (152, 190, 62), (74, 142, 76), (34, 92, 62)
TEAL, SKY, BLUE, NAVY = (38, 142, 142), (112, 178, 214), (46, 98, 172), (32, 52, 98)
VIOLET, PLUM, SLATE, SAND = (128, 92, 172), (104, 44, 92), (98, 112, 124), (204, 176, 132)

CATEGORIES = (
    Category(
        "coffee", DRINKS, 13.0, "Ounce", (8, 10, 12, 16, 32), 12, 0.78, "pouch", "tin",
        {"Whole Bean Coffee": 1.1, "Ground Coffee": 1.0, "Espresso Beans": 1.2, "Cold Brew Blend": 1.05},
        {"Dark Roast": COCOA, "Medium Roast": BROWN, "Light Roast": SAND, "Hazelnut": AMBER,
         "French Vanilla": CREAM, "Ethiopian Single Origin": CRIMSON, "Decaf": FOREST},
    ),
    Category(
        "tea", DRINKS, 7.5, "Count", (15, 20, 25, 50, 100), 20, 0.62, "box", "tin",
        {"Black Tea Bags": 1.0, "Green Tea Bags": 1.05, "Herbal Tea Bags": 1.1, "Oolong Pyramid Sachets": 1.4},
        {"Earl Grey": NAVY, "Jasmine": LIME, "Chamomile": YELLOW, "Peppermint": GREEN, "Ginger Lemon": ORANGE,
         "Raspberry": PINK, "Spiced Chai": BROWN},
    ),
    Category(
        "sparkling water", DRINKS, 2.4, "Fl Oz", (8.4, 11.2, 12, 16.9), 12, 0.55, "can", "glass bottle",
        {"Sparkling Water": 0.9, "Seltzer": 0.85, "Craft Soda": 1.3, "Tonic": 1.35},
        {"Grapefruit": PINK, "Lime": LIME, "Blood Orange": ORANGE, "Cucumber Mint": GREEN, "Black Cherry": PLUM,
         "Elderflower": CREAM},
    ),
    Category(
        "juice", DRINKS, 5.2, "Fl Oz", (8, 16, 32, 46, 64), 32, 0.7, "carton", "glass bottle",
        {"Juice": 1.0, "Cold Pressed Juice": 1.6, "Nectar": 0.9, "Juice Smoothie": 1.3},
        {"Apple": LIME, "Orange Mango": ORANGE, "Tart Cherry": CRIMSON, "Pomegranate": RED, "Carrot Ginger": AMBER,
         "Concord Grape": PLUM, "Cranberry": PINK},
    ),
    Category(
        "olive oil", PANTRY, 14.0, "Fl Oz", (8.5, 12.7, 16.9, 25.4, 33.8), 16.9, 0.8, "bottle", "glass bottle",
        {"Extra Virgin Olive Oil": 1.15, "Olive Oil": 0.9, "Avocado Oil": 1.1, "Infused Olive Oil": 1.25},
        {"Classic": AMBER, "Robust": FOREST, "Mild": YELLOW, "Garlic": CREAM, "Basil": GREEN, "Chili": RED},
    ),
    Category(
        "honey", PANTRY, 9.5, "Ounce", (8, 12, 16, 22, 32), 12, 0.75, "squeeze bottle", "glass jar",
        {"Honey": 1.0, "Raw Honey": 1.25, "Creamed Honey": 1.2, "Maple Syrup": 1.5},
        {"Wildflower": AMBER, "Clover": YELLOW, "Orange Blossom": ORANGE, "Buckwheat": COCOA, "Acacia": CREAM,
         "Chestnut": BROWN},
    ),
    Category(
        "jam", PANTRY, 5.6, "Ounce", (5, 8, 10, 12, 18), 10, 0.65, "squeeze bottle", "glass jar",
        {"Fruit Spread": 1.0, "Preserves": 1.1, "Marmalade": 1.05, "Fruit Butter": 1.2},
        {"Strawberry": RED, "Apricot": ORANGE, "Blueberry": NAVY, "Fig": PLUM, "Raspberry Rose": PINK,
         "Quince": AMBER, "Blackcurrant": CRIMSON},
    ),
    Category(
        "chocolate", PANTRY, 8.0, "Ounce", (3, 3.5, 5, 8, 14), 5, 0.7, "box", "tin",
        {"Chocolate Truffles": 1.4, "Chocolate Bar": 0.9, "Chocolate Bark": 1.0, "Hot Cocoa Mix": 0.8},
        {"Dark 70%": COCOA, "Milk": BROWN, "White": CREAM, "Sea Salt Caramel": AMBER, "Orange Peel": ORANGE,
         "Peppermint Crunch": TEAL, "Raspberry": PINK},
    ),
    Category(
        "cookies", PANTRY, 5.0, "Ounce", (4.4, 6, 8, 12, 16), 8, 0.68, "box", "tin",
        {"Cookies": 1.0, "Shortbread": 1.2, "Biscotti": 1.25, "Wafer Rolls": 0.95},
        {"Chocolate Chip": BROWN, "Butter": YELLOW, "Oatmeal Raisin": SAND, "Lemon": LIME, "Almond": CREAM,
         "Double Cocoa": COCOA, "Matcha": GREEN},
    ),
    Category(
        "pasta sauce", PANTRY, 6.2, "Ounce", (12, 16, 18, 24, 32), 24, 0.6, "pouch", "glass jar",
        {"Pasta Sauce": 1.0, "Marinara Sauce": 1.05, "Pesto": 1.7, "Simmer Sauce": 1.1},
        {"Tomato Basil": RED, "Roasted Garlic": ORANGE, "Arrabbiata": CRIMSON, "Four Cheese": CREAM,
         "Mushroom": BROWN, "Genovese": GREEN},
    ),
    Category(
        "spices", PANTRY, 5.4, "Ounce", (1.2, 1.8, 2.5, 4, 8, 16), 2.5, 0.6, "pouch", "glass jar",
        {"Seasoning": 1.0, "Ground Spice": 0.95, "Curry Blend": 1.2, "Barbecue Rub": 1.1, "Finishing Salt": 1.3},
        {"Smoked Paprika": RED, "Turmeric": YELLOW, "Everyday": GREEN, "Madras": ORANGE, "Chipotle": CRIMSON,
         "Black Pepper": SLATE, "Lemon Herb": LIME},
    ),
    Category(
        "nuts", PANTRY, 8.8, "Ounce", (5, 8, 12, 16, 32), 12, 0.82, "pouch", "glass jar",
        {"Almonds": 1.0, "Cashews": 1.2, "Trail Mix": 0.85, "Pistachios": 1.35},
        {"Roasted Salted": SAND, "Raw": CREAM, "Honey Roasted": AMBER, "Smoked": BROWN, "Chili Lime": LIME,
         "Rosemary": FOREST},
    ),
    Category(
        "bars", PANTRY, 12.0, "Count", (5, 6, 8, 12, 18), 8, 0.85, "box", "tin",
        {"Protein Bars": 1.3, "Granola Bars": 0.8, "Fruit and Nut Bars": 1.0, "Energy Bites": 1.1},
        {"Peanut Butter": SAND, "Mint Chocolate": TEAL, "Mixed Berry": VIOLET, "Coconut": SKY, "Cookie Dough": CREAM,
         "Apple Pie": RED},
    ),
    Category(
        "rice and grains", PANTRY, 6.5, "Ounce", (12, 16, 32, 64, 80), 32, 0.72, "pouch", "carton",
        {"Basmati Rice": 1.0, "Jasmine Rice": 0.95, "Quinoa": 1.4, "Rolled Oats": 0.8},
        {"White": CREAM, "Brown": BROWN, "Tricolor": CRIMSON, "Sprouted": GREEN, "Aged": AMBER, "Quick Cook": BLUE},
    ),
    Category(
        "vitamins", CARE, 14.5, "Count", (30, 60, 90, 120, 180), 60, 0.66, "pill bottle", "glass jar",
        {"Capsules": 1.0, "Gummies": 0.9, "Softgels": 1.15, "Chewable Tablets": 0.85},
        {"Vitamin C": ORANGE, "Vitamin D3": YELLOW, "Multivitamin": GREEN, "Elderberry": PLUM, "Omega 3": AMBER,
         "Magnesium": SLATE, "Biotin": PINK},
    ),
    Category(
        "shampoo", CARE, 9.0, "Fl Oz", (3, 8, 12, 16, 32), 12, 0.6, "bottle", "pump bottle",
        {"Shampoo": 1.0, "Conditioner": 1.05, "Body Wash": 0.85, "Hand Soap": 0.65},
        {"Lavender": VIOLET, "Coconut Milk": CREAM, "Tea Tree": GREEN, "Sea Breeze": SKY, "Rose": PINK,
         "Charcoal": SLATE},
    ),
)  # fmt: skip

# Brand -> (level, departments). Fictional; level 1 is the ordinary brand.
BRANDS: dict[str, tuple[float, tuple[str, ...]]] = {
    "Alder & Finch": (1.45, (PANTRY, DRINKS)), "Amberlight": (1.1, (PANTRY,)), "Bay Street": (0.8, (DRINKS,)),
    "Belmarre": (1.9, (CARE,)), "Birdsong Acres": (1.2, (PANTRY,)), "Blue Kettle": (1.0, (DRINKS,)),
    "Brightpantry": (0.6, (PANTRY, DRINKS)), "Brookvale": (0.85, (PANTRY,)), "Casa Montelva": (1.6, (PANTRY,)),
    "Cedar Hollow": (0.95, (PANTRY, DRINKS)), "Clearwell": (0.75, (CARE,)), "Copper Ladle": (1.25, (PANTRY,)),
    "Dailymark": (0.52, (PANTRY, DRINKS, CARE)), "Dunmore Mills": (1.05, (PANTRY,)), "Eastwind": (0.9, (DRINKS,)),
    "Elderwick": (1.75, (PANTRY, DRINKS)), "Farrow Lane": (1.0, (PANTRY,)), "Fennel & Rye": (1.3, (PANTRY,)),
    "First Orchard": (0.9, (DRINKS, PANTRY)), "Glasswater": (1.15, (DRINKS, CARE)), "Golden Acre": (0.7, (PANTRY,)),
    "Goodbarrel": (0.78, (PANTRY, DRINKS)), "Greyfield": (1.0, (CARE,)), "Harbor & Vine": (1.4, (DRINKS,)),
    "Hearthside": (0.88, (PANTRY,)), "Highmeadow": (1.18, (PANTRY, DRINKS)), "Ivory Coast Road": (1.35, (DRINKS,)),
    "Juniper Row": (1.55, (CARE, DRINKS)), "Kestrel Creek": (1.08, (PANTRY,)), "Kindleaf": (0.82, (DRINKS, CARE)),
    "La Verasca": (2.1, (PANTRY,)), "Larkspur": (1.22, (CARE,)), "Lowlander": (0.66, (PANTRY, DRINKS)),
    "Maison Orvelle": (2.3, (PANTRY, DRINKS)), "Mapleton's": (0.94, (PANTRY,)), "Morningfold": (1.02, (DRINKS, PANTRY)),
    "Nightjar": (1.5, (DRINKS,)), "Northbeam": (0.92, (CARE,)), "Old Quarry": (1.12, (PANTRY,)),
    "Olivanto": (1.3, (PANTRY,)), "Pellworth": (0.72, (PANTRY, CARE)), "Pinch of Plenty": (0.98, (PANTRY,)),
    "Quillfeather": (1.65, (PANTRY,)), "Redwood Table": (1.06, (PANTRY,)), "Saltmarsh": (1.28, (PANTRY,)),
    "Silver Fern": (1.42, (CARE, DRINKS)), "Sunday Provisions": (1.2, (PANTRY, DRINKS)), "Tall Timber": (0.86, (PANTRY,)),
    "Threefold": (0.58, (CARE, PANTRY)), "Umberland": (1.0, (DRINKS,)), "Verdant Vale": (1.16, (CARE, PANTRY)),
    "Willow & Wick": (1.7, (CARE,)),
}  # fmt: skip

# Claims written in the text -> (price factor, share of lines that make the claim).
CLAIMS: dict[str, tuple[float, float]] = {
    "Organic": (1.2, 0.28),
    "Gluten Free": (1.08, 0.18),
    "Sugar Free": (1.0, 0.1),
    "Kosher": (1.0, 0.12),
}

PACK_COUNTS = {1: 0.52, 2: 0.14, 3: 0.1, 4: 0.08, 6: 0.1, 12: 0.06}  # items in a pack -> share
PACK_ELASTICITY = 0.88

# Seen in the image and nowhere else -> (price factor, share).
FINISHES: dict[str, tuple[float, float]] = {"kraft": (0.72, 0.3), "standard": (1.0, 0.4), "gold": (1.55, 0.3)}
RICH_PACKAGE = (1.4, 0.45)
GIFT_SHARE = 0.2  # of lines are gift sets, which the text says; how many items they hold only the image shows
GIFT_COUNTS = {2: 0.4, 4: 0.3, 6: 0.3}
GIFT_ELASTICITY = 0.75

NOISE_SIGMA = 0.17  # of log price: noise, which can't be predicted
