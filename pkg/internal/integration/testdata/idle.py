"""Waits in IDLE (RFC 2177) by Python's imaplib, and prints what it is told.

Usage: idle.py HOST:PORT CA USER
The password is the first line of stdin. Exit code 1 when the session ends.
"""

import imaplib
import ssl
import sys

address, ca, user = sys.argv[1:]
password = sys.stdin.readline().rstrip("\n")
host, port = address.rsplit(":", 1)
imap = imaplib.IMAP4_SSL(host, int(port), ssl_context=ssl.create_default_context(cafile=ca))
imap.login(user, password)
imap.select("INBOX")
imap.send(b"x IDLE\r\n")
while line := imap.readline():
    print("idling" if line.startswith(b"+") else line.decode().rstrip(), flush=True)
sys.exit(1)
