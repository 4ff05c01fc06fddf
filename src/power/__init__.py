"""The power actions: start, stop, shut down or reboot one machine, and report truthfully.

`action` reads from top to bottom: look, send once, follow. `guest` has the requests about
one machine, and `tasks` says what Proxmox's tasks mean for it. `obstacles` says why nothing
is sent, and `outcome` waits for what becomes of the action. `outlook` says what to expect
of an action that goes on, and `advice` how one has ended, with the next step.
"""
