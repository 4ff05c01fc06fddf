"""The Proxmox VE API: what is asked, and what the answers mean.

`api` sends a request and turns whatever goes wrong into a ProxmoxError: `refusals` has the
words. `entry_nodes` finds an address whose node has quorum, if PROXMOX_URL names several.
`rows` reads the answers into our models, `tasks` those about tasks and their logs, and
`rights` what the token may do.
"""
