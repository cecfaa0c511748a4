"""The ``gscnn`` commands: one file each with one function, which imports what it needs when it is called.

`main` finds the function by the words that were typed, and `parsing.CommandParser` makes its command line.
"""
