"""The Proxmox VE API: the only way out of this program.

`transport` lets nothing pass but GET and the four power actions, ends each request with its
deadline, and has the TLS and the proxies that `network` found. `api` sends, and turns
whatever goes wrong into a ProxmoxError, in the words of `no_answer` and `refusals`. `rows`
reads what Proxmox answers into our models, `rights` what it says of the token.
"""
