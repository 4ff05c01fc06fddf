"""The three lists: what the cluster consists of, and whether anything is wrong.

`ask_nodes` asks every node at once. `merge` overlays the cluster's broadcast with the
nodes' own answers, and `filters` narrow the machines. `overview` reads what `attention`
then finds that a person should look at, worst first; `tasks` says which failed, and which
run. `notes` give the totals and say what could not be read or is not shown. `texts` writes a
line for each row, and `answers` makes the text and the structured content of a tool from
all that, and shortens both where they would be too long.
"""
