"""The Proxmox VE API: the only way out of this program.

`transport` lets nothing pass but GET and the four power actions, and ends each request at
its `deadline`. `network` finds out once which proxy and which CAs this computer uses. `api`
sends a request and turns whatever goes wrong into a ProxmoxError: `no_answer` and
`refusals` have the words. `rows` reads the answers into our models, and `rights` reads what
the token may do.
"""
