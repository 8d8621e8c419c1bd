"""The verb `report`: everything about one or several runs in one HTML file that needs no server and no network.

    run folders --facts--> RunFacts --results, differences, costs, ...--> blocks --page, report.html.j2--> one file

A number that was not computed is never filled in: the page says that it is missing, and why.
"""
