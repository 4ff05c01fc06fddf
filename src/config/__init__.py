"""What the user sets: the five PROXMOX_* variables.

They come from the environment or from .env, are checked all at once, and each mistake is
named with its cure. The file of a CA belongs to them: whether there is a certificate in it
is found out here, before anything is contacted.
"""
