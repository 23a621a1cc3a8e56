"""The sentences that the demo's texts are made of. Data only.

Slots: {brand} {item} {variety} {place} {occasion} {dish} {person} {season} {trait} {number}.
"""

HEADLINES = (
    "FRESH FROM {place}", "MADE WITH CARE", "A GIFT THEY WILL USE", "SMALL BATCHES", "EASY TO STORE",
    "FOR {occasion}", "REAL {variety} CHARACTER", "QUALITY YOU CAN TRUST", "NO SURPRISES", "OUR PROMISE",
    "Great value", "Loved by {person}", "Ready when you are", "Thoughtfully packed", "What's inside",
)  # fmt: skip

GENERAL = (
    "{brand} has been making {item} near {place} for more than {number} years, and the recipe has hardly changed.",
    "The {variety} kind is the one that {person} ask for again and again.",
    "Every batch is checked by hand before it leaves our workshop in {place}.",
    "Keep it in a cool, dry place away from direct sunlight and enjoy within {number} months of opening.",
    "Our {item} is a {trait} choice for {occasion}.",
    "A {trait} addition to any kitchen shelf, and a welcome surprise for {person}.",
    "We buy straight from growers around {place} and pay them a fair price.",
    "Open it on the first cold evening of {season} and you will understand why we are proud of it.",
    "The package is sealed for freshness and easy to close again.",
    "No artificial colors, no artificial flavors, and nothing you can't pronounce.",
    "Customers tell us that it reminds them of {season} at their grandparents' table in {place}.",
    "If you are not happy with your {item}, write to us and we will make it right within {number} days.",
    "It travels well, which makes it {trait} for {occasion}.",
    "Pairs nicely with {dish}, or simply on its own.",
    "Try it with {dish}: once you have, there is no way back.",
    "Made in a facility that also handles nuts, milk, soy and wheat.",
    "One order brings exactly what the title says, packed so that nothing breaks on the way.",
    "Winner of the {place} tasting in {season}, out of {number} entries.",
    "The team at {brand} calls this one \"the {trait} {variety}\", and so will you.",
    "Looking for something {trait} for {person}? Look no further.",
    "Each package is filled by weight, not by volume, so some settling may occur.",
    "What began at a market stall in {place} now reaches {person} all over the country.",
    "Please read the label for the full list of ingredients; the one on this page may be out of date.",
    "There are {number} good reasons to choose {variety}; taste is the first of them.",
    "It's a {trait} pick for {season}, and it won't let you down in the other months either.",
    "Stock up before {season}: our {item} tends to sell out.",
    "Perfect for {occasion}, for {person}, and for quiet evenings at home.",
    "We never cut corners: {number} steps, {number} pairs of hands, one {trait} result.",
    "From {place} with love, this {item} is as honest as the people who make it.",
    "Made for {person} who read labels and still want something {trait}.",
    "The {variety} note comes first, then a long and {trait} finish.",
    "You can taste the difference that slow work makes.",
    "Our packaging uses {number}0% recycled material and can go straight into the recycling bin.",
    "Ideal for sharing at {occasion}, though nobody will blame you for keeping it to yourself.",
    "Ask {person} which brand they trust and sooner or later you'll hear the name {brand}.",
)  # fmt: skip

BY_DEPARTMENT = {
    "pantry": (
        "Serve it with {dish} and a pinch of salt.",
        "Use it within {number} weeks once opened, if it lasts that long.",
        "A spoonful turns plain {dish} into something {trait}.",
        "Our cooks in {place} suggest {dish} with {variety} as the star of the plate.",
        "Contains no palm oil and no added preservatives.",
        "Goes into lunch boxes, onto cheese boards and, we hear, into {dish}.",
        "Harvested in {season} when flavor is at its peak.",
    ),
    "drinks": (
        "Serve chilled over ice, or warm it gently in {season}.",
        "A {trait} cup for early mornings and late guests.",
        "Grown at altitude around {place}, where nights are cold and flavor builds slowly.",
        "Pour it beside {dish} and see the table go quiet.",
        "Brew for {number} minutes for a mild cup, longer for a {trait} one.",
        "Bright, balanced and never bitter.",
        "Cuts through rich food such as {dish}.",
    ),
    "care": (
        "Dermatologist tested and gentle enough for everyday use.",
        "Ask your doctor before use if you are pregnant, nursing or under treatment.",
        "Never tested on animals; made without parabens near {place}.",
        "Keep out of reach of children and don't use if the seal is broken.",
        "A {trait} routine takes less than {number} minutes a day.",
        "The scent of {variety} is light and gone within the hour.",
        "Made for {person} with sensitive skin and busy mornings.",
    ),
}

SLOTS: dict[str, tuple[str, ...]] = {
    "place": (
        "Ashford Valley", "the Corran Hills", "Port Lindell", "Vermont", "Oregon", "Tuscany", "Crete", "Oaxaca",
        "Kyoto", "the Black Forest", "Normandy", "Kerala", "Minas Gerais", "Nova Scotia", "Andalucía", "Lake Como",
        "Jaffna", "the Hudson Valley", "Sonoma", "Provence",
    ),
    "occasion": (
        "birthdays", "holiday tables", "picnics", "weddings", "long road trips", "office kitchens", "camping",
        "Sunday brunch", "thank-you gifts", "movie nights", "housewarmings", "school lunches", "game day",
    ),
    "dish": (
        "warm sourdough", "grilled fish", "vanilla ice cream", "roast vegetables", "a plate of soft cheese",
        "buckwheat pancakes", "tomato salad", "lamb stew", "baked apples", "rice pudding", "scrambled eggs",
        "ginger biscuits", "a bowl of noodles", "crème brûlée",
    ),
    "person": (
        "parents", "home cooks", "teachers", "runners", "students", "nurses on the night shift", "grandparents",
        "bakers", "gardeners", "guests", "new neighbors", "the whole family", "people who say they need nothing",
    ),
    "season": ("spring", "early summer", "late summer", "autumn", "winter", "December", "the harvest", "March"),
    "trait": (
        "honest", "bold", "gentle", "reliable", "generous", "surprising", "mellow", "bright", "comforting",
        "well-rounded", "classic", "light", "deep", "no-nonsense", "lovely",
    ),
    "number": ("2", "3", "4", "5", "6", "7", "8", "9"),
}  # fmt: skip

GIFT_WORDS = ("Gift Set", "Gift Box", "Sampler Gift Set", "Gift Basket", "Holiday Gift Crate")
GIFT_SENTENCES = (
    "Comes in a gift box with a ribbon, ready to hand over.",
    "Add a card at checkout and we'll write it by hand in {place}.",
    "An assortment for {occasion}; see the image for what is inside.",
)
