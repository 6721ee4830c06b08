# Signs in with the response of XOAUTH2 that comes on stdin, over IMAP or, with a
# sender, over SMTP.
import base64, imaplib, os, smtplib, ssl, sys

port, ca, *rest = sys.argv[1:]
response = sys.stdin.readline().strip()
context = ssl.create_default_context(cafile=ca)
if len(rest) == 1:
    server = imaplib.IMAP4_SSL("127.0.0.1", int(port), ssl_context=context)
    server.authenticate("XOAUTH2", lambda _: base64.b64decode(response))
    server.select("INBOX", readonly=True)
    for n in server.search(None, "ALL")[1][0].split():
        data = server.fetch(n, "(BODY.PEEK[])")[1][0][1]
        with open(os.path.join(rest[0], n.decode()), "wb") as f:
            f.write(data)
    server.logout()
else:
    sender, recipient, message = rest
    with smtplib.SMTP("127.0.0.1", int(port)) as server, open(message, "rb") as f:
        server.starttls(context=context)
        server.ehlo()
        code, text = server.docmd("AUTH", "XOAUTH2")
        if code == 334:
            code, text = server.docmd(response)
        if code != 235:
            sys.exit(f"refused: {code} {text}")
        server.sendmail(sender, recipient, f.read())
