"""Reading and editing configuration: what values may be, where they stand, what is wrong with them, whose key it is.

What an entry means together, and the table of routes, stand above this, in ``models.py`` and ``routes.py``.
"""
