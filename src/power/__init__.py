"""The power actions: start, stop, shutdown, reboot of one machine, and the truth of it.

`action` reads from top to bottom: look, send once, follow. `guest` has the requests about
one machine, `tasks` what Proxmox's tasks mean for it. `obstacles` says why nothing is sent,
`outcome` waits for what becomes of it, and `advice` words that, with the next step.
"""
