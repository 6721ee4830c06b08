# Sends a message over SMTP that another program speaks on its standard input and
# output.
import smtplib, socket, subprocess, sys

sender, recipient, message, *command = sys.argv[1:]
ours, theirs = socket.socketpair()
with subprocess.Popen(command, stdin=theirs, stdout=theirs) as program:
    theirs.close()

    class Tunnel(smtplib.SMTP):
        def _get_socket(self, host, port, timeout):
            return ours

    with Tunnel("tunnel") as server, open(message, "rb") as f:
        server.sendmail(sender, recipient, f.read())
sys.exit(program.returncode)
