"""Writes the catalog of goods that ships: no years, long titles that share words, as shops have them.

Brands and products are made up; what is drawn comes from one seed, so the file can be made again:

    scripts/make_goods.py verifiers/rlpost_verifiers/catalog/data/goods.jsonl
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BRANDS = (
    *("Norvane", "Kelbrook", "Tarnfell", "Ostrella", "Vindarra", "Quillmere", "Haldane & Pike", "Brisk North"),
    *("Lumaro", "Fernhollow", "Castavel", "Ridgeline Supply", "Opalune", "Drumlin", "Saltmarsh Co.", "Everhythe"),
)
COLOURS = ("Slate Grey", "Forest Green", "Black", "Sand", "Navy Blue", "Rust Orange")
PRODUCTS: dict[str, dict[str, tuple[float, tuple[str, ...], tuple[str, ...]]]] = {
    "Trail running": {
        "Trail Running Shoes": (95, ("Lightweight", "Breathable Mesh", "Non-Slip Sole", "Wide Toe Box"), ()),
        "Hydration Vest": (60, ("2 L Bladder Included", "Adjustable Straps", "Reflective"), ()),
    },
    "Road running": {
        "Road Running Shoes": (110, ("Cushioned", "Breathable Mesh", "Carbon Plate"), ()),
        "Running Belt": (22, ("Fits All Phones", "Water Resistant", "No Bounce"), ()),
        "Running Shorts": (30, ("Quick Dry", "Zip Pocket", "Lightweight"), ()),
    },
    "Camping": {
        "Camping Tent": (140, ("Waterproof", "Easy Setup", "Lightweight"), (", 2 Person", ", 4 Person")),
        "Sleeping Bag": (75, ("3 Season", "Compression Sack Included", "Water Resistant"), ()),
        "Camping Stove": (45, ("Windproof", "Foldable", "Piezo Ignition"), ()),
    },
    "Hiking": {
        "Hiking Boots": (125, ("Waterproof", "Ankle Support", "Non-Slip Sole"), ()),
        "Trekking Poles": (50, ("Foldable", "Cork Grip", "Lightweight"), (" (Pair)", " (Pair with Snow Baskets)")),
        "Hiking Backpack": (85, ("Rain Cover Included", "Adjustable Straps", "Breathable Mesh"), (", 40 L", ", 60 L")),
    },
    "Cycling": {
        "Bike Light Set": (28, ("USB-C Rechargeable", "Waterproof", "Front and Rear"), ()),
        "Cycling Helmet": (65, ("Adjustable Fit", "Breathable", "Magnetic Visor"), ()),
    },
    "Coffee": {
        "Burr Coffee Grinder": (70, ("Stainless Steel", "Quiet", "31 Settings"), (" (Manual)", " (Electric)")),
        "French Press": (32, ("Stainless Steel", "Double Wall", "Dishwasher Safe"), (", 34 oz", ", 50 oz")),
        "Gooseneck Kettle": (55, ("Temperature Control", "Stainless Steel", "Quick Heating"), ()),
    },
    "Baking": {
        "Loaf Pan": (18, ("Nonstick", "Carbon Steel", "Dishwasher Safe"), (" (Pack of 2)", " (Pack of 4)")),
        "Stand Mixer": (180, ("6 Speed", "Tilt Head", "Quiet"), ()),
    },
    "Yoga": {
        "Yoga Mat": (35, ("Non-Slip", "Extra Thick", "Carrying Strap Included"), (", 6 mm", ", 10 mm")),
        "Yoga Block": (16, ("High Density Foam", "Non-Slip", "Lightweight"), (" (Set of 2)",)),
    },
}
"""By category and product: usual price in dollars, features, and variants that differ in their last words only."""
BY_PRODUCT = (2, 4)
"""Fewest and most brands that make a product."""


def goods(seed: int = 1) -> list[dict[str, Any]]:
    """The rows of the catalog, those with most ratings first."""
    rng = random.Random(seed)
    rows = [row for category in PRODUCTS for row in _of_category(category, rng)]
    for row in rows:
        row["parent_asin"] = "B0" + "".join(rng.choices("0123456789BCDFGHJKLMNPQRSTVWXYZ", k=8))
    return sorted(rows, key=lambda row: -row["ratings"])


def _of_category(category: str, rng: random.Random) -> Iterator[dict[str, Any]]:
    for product, (usual, features, variants) in PRODUCTS[category].items():
        for brand in rng.sample(BRANDS, rng.randint(*BY_PRODUCT)):
            price, known = usual * math.exp(rng.gauss(0.0, 0.4)), 7.0 + rng.gauss(0.0, 0.8)
            said = [*rng.sample(features, rng.randint(2, min(3, len(features)))), rng.choice(COLOURS)]
            title = f"{brand} {product} - {', '.join(said)}"
            for number, variant in enumerate(variants or ("",)):
                yield {
                    "title": title + variant,
                    "brand": brand,
                    "category": category,
                    "price": round(price * (1 + 0.3 * number)) - 0.01,
                    "ratings": round(math.exp(known - 0.5 * number)),
                }


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in goods()]
    Path(sys.argv[1]).write_text("".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
