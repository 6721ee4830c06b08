#!/bin/bash
# The machine's service as an administrator meets it, in a machine of its own
# that systemd has booted. Its last line says that all went well.
exec > /test/out 2>&1
trap 'systemctl poweroff' EXIT
set -eux
export HOME=/root PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd /

o365pw sandbox --dir /srv/lab > /srv/config 2> /srv/said &
until [ -s /srv/config ]; do sleep 0.1; done
eval "$(grep -o 'export AZURE.*' /srv/said)"

# look says whether the mailbox can be opened with an app password.
look() {
	curl --silent --show-error --max-time 20 --user "alice@contoso.com:$1" imap://127.0.0.1:1993/ --request 'STATUS INBOX (MESSAGES)' | grep '^\* STATUS'
}
property() { systemctl show --property="$1" --value "$2"; }

! o365pw service status
o365pw service install --system
o365pw service install --system # again
[ "$(stat -c '%U %a' /etc/o365pw /var/lib/o365pw | tr '\n' ' ')" = 'o365pw 750 o365pw 700 ' ]
[ "$(stat -c '%U %a' /etc/credstore.encrypted/o365pw.keychain-passphrase)" = 'root 600' ]
sed -i 's|/srv/lab/|/etc/o365pw/|' /srv/lab/config.toml
install -o o365pw -m 600 /srv/lab/config.toml /srv/lab/sandbox-ca.pem /etc/o365pw/

# Nobody types a passphrase, and an app password is there before the service is.
password=$(o365pw service run create printer --allow imap < /dev/null)
[ "$(stat -c '%U %a' /var/lib/o365pw/registry.json)" = 'o365pw 600' ]
o365pw service start
look "$password"
o365pw service status | grep '^Socket     127.0.0.1:1993, which systemd holds open$'
o365pw service status -o json | grep '"imap": "127.0.0.1:1993"'
o365pw service logs | grep '"msg":"signed in"'

# The sandbox that it is in.
pid=$(property MainPID o365pw.service)
grep '^CapBnd:.0000000000000000$' /proc/$pid/status
grep '^NoNewPrivs:.1$' /proc/$pid/status
grep '^Seccomp:.2$' /proc/$pid/status
[ "$(stat -c %U /proc/$pid)" = o365pw ]
systemd-analyze security --threshold=15 --no-pager o365pw.service | tail -n 1

# What is created while it runs opens at once; a reload and a restart do not
# disturb that; and --stop is undone by the next who connects.
second=$(o365pw service run create scanner --allow imap)
look "$second"
systemctl reload o365pw.service
until o365pw service logs | grep '"msg":"reloaded"'; do sleep 0.1; done
o365pw service restart
[ "$(property MainPID o365pw.service)" != "$pid" ]
look "$password"
o365pw service run serve --stop
look "$password"
o365pw service run revoke printer --yes
! look "$password"

# It starts again after a fault, and not when it is told to stop.
kill -9 "$(property MainPID o365pw.service)"
look "$second"
[ "$(property NRestarts o365pw.service)" != 0 ] || [ "$(property ActiveState o365pw.service)" = active ]
o365pw service stop
! curl --silent --max-time 5 imap://127.0.0.1:1993/
! o365pw service status

# A configuration that does not fit the sockets is refused, until install has
# run again.
printf '\n[gateway]\nimap = "127.0.0.1:2993"\n' >> /etc/o365pw/config.toml
! o365pw service start
o365pw service logs | grep 'systemd has passed the socket 127.0.0.1:1993'
o365pw service stop
o365pw service install --system
o365pw service start
o365pw service status | grep '127.0.0.1:2993, which systemd holds open$'

# A passphrase in a file, which only root can read: the same keychain.
systemd-creds decrypt --name=o365pw.keychain-passphrase /etc/credstore.encrypted/o365pw.keychain-passphrase /etc/passphrase
chmod 600 /etc/passphrase
rm /etc/credstore.encrypted/o365pw.keychain-passphrase
o365pw service install --system --passphrase-file /etc/passphrase
o365pw service restart
o365pw service run show scanner --password | grep "$second"

o365pw service uninstall --system
[ ! -e /etc/systemd/system/o365pw.service ]
[ -e /var/lib/o365pw/registry.json ]
! systemctl is-active o365pw.service

# A person's, whose systemd runs beside.
useradd --create-home alice
uid=$(id -u alice)
systemctl start "user@$uid.service"
cp /srv/lab/* /home/alice
sed -i 's|/etc/o365pw/|/home/alice/|' /home/alice/config.toml
echo 'of alice' > /home/alice/passphrase
chown -R alice: /home/alice
chmod 600 /home/alice/passphrase
setpriv --reuid "$uid" --regid "$uid" --clear-groups env -i HOME=/home/alice USER=alice PATH="$PATH" XDG_RUNTIME_DIR="/run/user/$uid" \
	AZURE_CLIENT_ID="$AZURE_CLIENT_ID" AZURE_CLIENT_SECRET="$AZURE_CLIENT_SECRET" \
	O365PW_CONFIG=/home/alice/config.toml O365PW_KEYCHAIN=file O365PW_KEYCHAIN_PASSPHRASE_FILE=/home/alice/passphrase \
	bash -eux -c '
		o365pw service install
		o365pw service start
		o365pw service status | grep "systemd, of this person: running"
		curl --silent --max-time 20 --user "alice@contoso.com:$(o365pw create hers --allow imap)" imap://127.0.0.1:1993/ --request "STATUS INBOX (MESSAGES)" | grep STATUS
		# With her desktop keychain in place of the file.
		export DBUS_SESSION_BUS_ADDRESS=unix:path=$XDG_RUNTIME_DIR/bus
		unset O365PW_KEYCHAIN O365PW_KEYCHAIN_PASSPHRASE_FILE
		printf opensesame | gnome-keyring-daemon --unlock --components=secrets
		o365pw service install
		o365pw service stop
		o365pw service start
		curl --silent --max-time 20 --user "alice@contoso.com:$(o365pw create another --allow imap)" imap://127.0.0.1:1993/ --request "STATUS INBOX (MESSAGES)" | grep STATUS
		! grep KEYCHAIN ~/.config/systemd/user/o365pw.service
		o365pw service stop
		o365pw service uninstall
		[ ! -e ~/.config/systemd/user/o365pw.service ]
	'
echo all went well
