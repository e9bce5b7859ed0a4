"""How endpoints say what all endpoints say: finish words, filters, reasoning, refused parameters.

The vocabulary is in the TOML tables beside this file, a row a word, each with its source; the code
here reads them and knows no vendor. To teach refusalkit a new word add a row: tests are made of it.
"""
