"""What the user sets: the five PROXMOX_* variables.

`settings` reads and checks all five at once, from the environment or from the .env that
`env_file` has read, and names each mistake with its cure. `ca_file` finds out whether there
is a certificate in the file that PROXMOX_VERIFY_SSL names, before anything is contacted.
"""
