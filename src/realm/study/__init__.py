"""Studies: rows that differ in one ingredient each, over several seeds (the paper's Table 2).

A study is a TOML file: a table for each stage, and a table for each row that says what is
different in it. `StudyRun` runs the rows, `collect` makes the table of what is there.
"""
