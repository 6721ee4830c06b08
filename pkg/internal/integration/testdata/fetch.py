"""Saves each message of INBOX by Python's imaplib, as DIR/UID.

Usage: fetch.py tls|starttls|clear login|plain HOST PORT CA USER DIR
The password is the first line of stdin. Exit code 1, with the server's words,
when it is refused.
"""

import imaplib
import os
import ssl
import sys

way, mechanism, host, port, ca, user, folder = sys.argv[1:]
password = sys.stdin.readline().rstrip("\n")
context = ssl.create_default_context(cafile=ca)
if way == "tls":
    imap = imaplib.IMAP4_SSL(host, int(port), ssl_context=context, timeout=30)
else:
    imap = imaplib.IMAP4(host, int(port), timeout=30)
    if way == "starttls":
        imap.starttls(context)
try:
    if mechanism == "login":
        imap.login(user, password)
    else:
        imap.authenticate("PLAIN", lambda _: f"\0{user}\0{password}".encode())
except imaplib.IMAP4.error as err:
    sys.exit(f"refused: {err}")
imap.select("INBOX", readonly=True)
for uid in imap.uid("SEARCH", "ALL")[1][0].split():
    for part in imap.uid("FETCH", uid, "(BODY.PEEK[])")[1]:
        if isinstance(part, tuple):
            with open(os.path.join(folder, uid.decode()), "wb") as out:
                out.write(part[1])
imap.logout()
