"""The three lists: what there is in the cluster, and how it is.

`ask_nodes` asks every node at once, `merge` puts what they say over what the cluster
broadcasts, `filters` narrow the machines, `attention` finds what a person should look at,
and `notes` has the tally and what could not be had. `texts` has a line for each row,
`answers` the whole that the model and programs read, cut where it is too long.
"""
