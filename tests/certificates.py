"""Make a CA and certificates as a Proxmox VE cluster does, and defective ones."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)


class Authority:
    """Make a cluster's CA like nearly all: from before 2026, without keyUsage.

    With a `company`, it is not Proxmox's own. With a `parent` it is an intermediate CA. Without
    `identifiers`, OpenSSL can tell two CAs of one name only by their signatures.
    """

    def __init__(
        self,
        folder: Path,
        cluster: str = "demo",
        begins: int = -1,
        company: str = "",
        parent: Self | None = None,
        identifiers: bool = True,
    ) -> None:
        self.folder = folder
        self.identifiers = identifiers
        parts = {NameOID.COMMON_NAME: "Proxmox Virtual Environment"}
        parts[NameOID.ORGANIZATIONAL_UNIT_NAME] = cluster
        parts[NameOID.ORGANIZATION_NAME] = "PVE Cluster Manager CA"
        if company:
            parts = {NameOID.COMMON_NAME: company}
        self.name = x509.Name([x509.NameAttribute(*part) for part in parts.items()])
        self.key = ec.generate_private_key(ec.SECP256R1())
        signer = parent or self
        certificate = (
            signer._builder(self.name, self.key, begins)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .sign(signer.key, hashes.SHA256())
        )
        self.path = str(folder / f"{company or cluster}-root-ca.pem")
        Path(self.path).write_bytes(certificate.public_bytes(PEM))

    def _builder(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, begins: int = -1
    ) -> x509.CertificateBuilder:
        begin = datetime.now(UTC) + begins * DAY
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + 30 * DAY)
        )
        if not self.identifiers:
            return builder
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        return builder.add_extension(own, False).add_extension(issuer(self.key.public_key()), False)

    def server(
        self, host: str = "127.0.0.1", begins: int = -1, named: bool = True
    ) -> tuple[str, str]:
        """Write a node's certificate, valid for 30 days, and its key; return the paths."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        try:
            alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            alternative = x509.DNSName(host)
        builder = (
            self._builder(name, key, begins)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        )
        if named:
            names = x509.SubjectAlternativeName([alternative])
            builder = builder.add_extension(names, False)
        certificate = builder.sign(self.key, hashes.SHA256())
        files = self.folder / "pve-ssl.pem", self.folder / "pve-ssl.key"
        files[0].write_bytes(certificate.public_bytes(PEM))
        files[1].write_bytes(
            key.private_bytes(
                PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
            )
        )
        return str(files[0]), str(files[1])


PEM = serialization.Encoding.PEM
