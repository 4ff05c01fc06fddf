"""The Proxmox VE API: the only way out of this program.

`transport` lets nothing pass but GET and the four power actions, and ends each request by
the `deadline`; the proxies and the CAs are those that `network` finds. `api` sends, and
turns whatever goes wrong into a ProxmoxError, in the words of `no_answer` and `refusals`.
`rows` reads what Proxmox answers into our models, `rights` what it says of the token.
"""
