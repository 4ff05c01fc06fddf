"""What the user sets: the five PROXMOX_* variables.

`settings` reads and checks all five at once, from the environment and from the .env file
that `env_file` parses, and names each mistake with its cure. `ca_file` checks the file that
PROXMOX_VERIFY_SSL names before anything is contacted. `files` reads both kinds of file and
tells why one cannot be read.
"""
