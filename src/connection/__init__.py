"""The connection: the only way out of this program.

`addresses` chooses one of those in PROXMOX_URL. Its `transport` lets nothing pass but GET and
the four power actions, and ends each request at its `deadline`, over connections that `sockets`
makes. `route` finds out once which proxy and which CAs this computer uses, `tls` verifies the
server. Where no answer comes, `no_answer` says why, and `untrusted` does for a certificate.
"""
