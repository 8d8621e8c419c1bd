"""Dataset cards: what is in a dataset, in a few tables and pictures. ``python -m shards inspect DIR``

    dataset --sizes, classes, values, duplicates--> Card --text--> tables on the terminal, card.md
            --sheet, mosaic, plots--> contact-sheet-SPLIT.png, mosaic.gif, classes.png, lengths.png

Each module works alone, so that a notebook can ask for one thing: ``shards.card.values.statistics(table)``,
``shards.card.duplicates.find_duplicates(folder, manifest)``, ``shards.card.facts.make_card("data/kth")``.
A card is no part of the dataset: its fingerprint and ``verify`` do not know it.
"""
