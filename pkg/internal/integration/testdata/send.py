"""Sends the message in FILE by Python's smtplib.

Usage: send.py smtp tls|starttls|clear AUTH_MECHANISM HOST PORT CA USER TO FILE
AUTH_MECHANISM is "AUTH PLAIN" or "AUTH LOGIN". The password is the first line
of stdin. Exit code 1, with the server's words, when it is refused.
"""

import smtplib
import ssl
import sys

_, way, mechanism, host, port, ca, user, to, path = sys.argv[1:]
password = sys.stdin.readline().rstrip("\n")
context = ssl.create_default_context(cafile=ca)
if way == "tls":
    smtp = smtplib.SMTP_SSL(host, int(port), context=context, timeout=60)
else:
    smtp = smtplib.SMTP(host, int(port), timeout=60)
    if way == "starttls":
        smtp.starttls(context=context)
smtp.ehlo()
smtp.user, smtp.password = user, password
try:
    if mechanism == "AUTH PLAIN":
        smtp.auth("PLAIN", smtp.auth_plain)
    else:
        smtp.auth("LOGIN", smtp.auth_login)
except smtplib.SMTPAuthenticationError as err:
    sys.exit(f"refused: {err}")
with open(path, "rb") as file:
    message = file.read()
smtp.sendmail(user, [to], message, ["BODY=8BITMIME"] if smtp.has_extn("8bitmime") else [])
smtp.quit()
