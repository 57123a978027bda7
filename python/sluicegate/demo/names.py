"""Names for people in the chat, who need none of their own."""

from __future__ import annotations

COLORS = (
    "Amber", "Azure", "Coral", "Crimson", "Emerald", "Golden", "Indigo", "Ivory", "Jade",
    "Lilac", "Ochre", "Olive", "Pearl", "Ruby", "Russet", "Saffron", "Sage", "Scarlet",
    "Silver", "Slate", "Sienna", "Umber", "Violet",
)  # fmt: skip
ANIMALS = (
    "Badger", "Bittern", "Crane", "Curlew", "Dipper", "Egret", "Grebe", "Heron", "Ibis",
    "Kingfisher", "Lapwing", "Loon", "Marten", "Mink", "Newt", "Osprey", "Otter", "Pike",
    "Plover", "Salmon", "Snipe", "Stork", "Swan", "Teal", "Tern", "Trout", "Vole", "Wader",
    "Wagtail",
)  # fmt: skip


def name_of(number: int) -> tuple[str, int]:
    """The name and the hue (degrees) of the n-th visitor; the first 667 names differ."""
    # 23 colours and 29 animals have no common factor, so both can go on at once.
    color = COLORS[number * 5 % len(COLORS)]
    return f"{color} {ANIMALS[number % len(ANIMALS)]}", number * 137 % 360
