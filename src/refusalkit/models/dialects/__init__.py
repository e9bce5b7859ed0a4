"""How each endpoint words what all have to say: finish words, filters, reasoning, parameters.

The vocabulary is in the TOML tables beside this file, one row for each word with its source; the
code here reads them and knows no vendor. For a new word add a row: tests are generated from it.
"""
