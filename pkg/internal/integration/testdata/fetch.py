"""Saves each message of INBOX by Python's imaplib or poplib, as DIR/NUMBER.

Usage: fetch.py imap|pop3 tls|starttls|clear MECHANISM HOST PORT CA USER DIR
MECHANISM is LOGIN or AUTHENTICATE PLAIN for IMAP. The password is the first
line of stdin. Exit code 1, with the server's words, when it is refused.
"""

import imaplib
import os
import poplib
import ssl
import sys

protocol, way, mechanism, host, port, ca, user, folder = sys.argv[1:]
password = sys.stdin.readline().rstrip("\n")
context = ssl.create_default_context(cafile=ca)


def save(name, data):
    with open(os.path.join(folder, name), "wb") as out:
        out.write(data)


def fetch_imap():
    if way == "tls":
        imap = imaplib.IMAP4_SSL(host, int(port), ssl_context=context, timeout=30)
    else:
        imap = imaplib.IMAP4(host, int(port), timeout=30)
        if way == "starttls":
            imap.starttls(context)
    try:
        if mechanism == "LOGIN":
            imap.login(user, password)
        else:
            imap.authenticate("PLAIN", lambda _: f"\0{user}\0{password}".encode())
    except imaplib.IMAP4.error as err:
        sys.exit(f"refused: {err}")
    imap.select("INBOX", readonly=True)
    for uid in imap.uid("SEARCH", "ALL")[1][0].split():
        for part in imap.uid("FETCH", uid, "(BODY.PEEK[])")[1]:
            if isinstance(part, tuple):
                save(uid.decode(), part[1])
    imap.logout()


def fetch_pop3():
    poplib._MAXLINE = 1 << 20  # there are longer lines than poplib takes
    if way == "tls":
        pop3 = poplib.POP3_SSL(host, int(port), context=context, timeout=30)
    else:
        pop3 = poplib.POP3(host, int(port), timeout=30)
        if way == "starttls":
            pop3.stls(context)
    try:
        pop3.user(user)
        pop3.pass_(password)
    except poplib.error_proto as err:
        sys.exit(f"refused: {err}")
    for number in range(1, pop3.stat()[0] + 1):
        save(str(number), b"".join(line + b"\r\n" for line in pop3.retr(number)[1]))
    pop3.quit()


{"imap": fetch_imap, "pop3": fetch_pop3}[protocol]()
