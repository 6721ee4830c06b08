// Runs in Thunderbird, in the context of its main window, by Marionette. It sets
// up an account as a person does, in Thunderbird's own dialog, then reads the
// mailbox and sends a message.
//
// arguments: the address, the app password, the authority's certificate (base64),
// the file that settings printed, whom to send to, how many messages there
// are, and which steps to take.

const [address, password, authority, settingsFile, recipient, count, phase] = arguments;
const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
const win = Services.wm.getMostRecentWindow("mail:3pane");

async function until(what, ok, seconds = 25) {
  for (const end = Date.now() + seconds * 1000; Date.now() < end; ) {
    const value = await ok();
    if (value) {
      return value;
    }
    await new Promise(resolve => win.setTimeout(resolve, 50));
  }
  throw new Error("waited in vain for " + what);
}

// The dialog, in the shadow of its container.
function hubOf(window) {
  return window.document.querySelector("account-hub-container")?.shadowRoot.querySelector("account-hub-email");
}

// A listener to sending, and a promise of its end.
function finished() {
  const deferred = Promise.withResolvers();
  const listener = {
    QueryInterface: ChromeUtils.generateQI(["nsIMsgSendListener"]),
    onStartSending() {},
    onSendProgress() {},
    onStatus() {},
    onStopSending(id, status, message) {
      Components.isSuccessCode(status) ? deferred.resolve() : deferred.reject(new Error(`sending: 0x${(status >>> 0).toString(16)} ${message}`));
    },
    onGetDraftFolderURI() {},
    onSendNotPerformed() {},
    onTransportSecurityError(id, status, info, location) {
      deferred.reject(new Error(`sending: TLS 0x${(status >>> 0).toString(16)} ${location}`));
    },
  };
  return [listener, deferred.promise];
}

// What an account is, as far as it matters here.
function settings(incoming, outgoing) {
  return [incoming, outgoing].map(s => [s.hostname ?? s.hostName ?? s.serverURI?.host, s.port, s.socketType, s.auth ?? s.authMethod, s.username]);
}

const phases = {
  // Trust the gateway, and fill in the dialog.
  async find() {
    Cc["@mozilla.org/security/x509certdb;1"].getService(Ci.nsIX509CertDB).addCertFromBase64(authority, "CT,,");
    await win.openAccountHub("MAIL");
    const hub = await until("the dialog", () => hubOf(win));
    const fill = async (selector, value) => {
      const input = await until(selector, () => hub.querySelector(selector));
      input.value = value;
      input.dispatchEvent(new win.Event("input", { bubbles: true }));
    };
    await fill("#realName", "Alice Example");
    await fill("#email", address);
    const forward = hub.querySelector("#forward");
    await until("Continue", () => !forward.disabled);
    forward.click();
    await until("a configuration, or that there is none", () => !hub.querySelector("#emailConfigFoundSubview").hidden || !hub.querySelector("#emailIncomingConfigSubview").hidden, 40);
    return { found: !hub.querySelector("#emailConfigFoundSubview").hidden, shown: hub.querySelector("#emailConfigFoundSubview").innerText };
  },

  // Go on with what it has found.
  async password() {
    const hub = hubOf(win);
    const forward = hub.querySelector("#forward");
    await until("Continue", () => !forward.disabled);
    forward.click();
    await until("the question for the password", () => !hub.querySelector("#emailPasswordSubview").hidden);
    const input = hub.querySelector("#emailPasswordSubview #password");
    input.value = password;
    input.dispatchEvent(new win.Event("input", { bubbles: true }));
    await until("Continue", () => !forward.disabled);
    forward.click();
    await until("the account", () => MailServices.accounts.accounts.some(a => a.incomingServer.type == "imap"), 40);
    return {};
  },

  // Read what is there, and send.
  async use() {
    const account = MailServices.accounts.accounts.find(a => a.incomingServer.type == "imap");
    const server = account.incomingServer;
    const inbox = await until("the inbox", () => {
      try {
        return server.rootFolder.getFolderWithFlags(Ci.nsMsgFolderFlags.Inbox);
      } catch (e) {
        return null;
      }
    });
    // It fetches new messages by itself, whole.
    const messages = [];
    await until("the messages", () => {
      const headers = [...inbox.messages];
      return headers.length == count && headers.every(h => h.flags & Ci.nsMsgMessageFlags.Offline);
    });
    for (const header of inbox.messages) {
      const stream = Cc["@mozilla.org/binaryinputstream;1"].createInstance(Ci.nsIBinaryInputStream);
      stream.setInputStream(inbox.getMsgInputStream(header, {}));
      let data = "";
      for (let n = stream.available(); n > 0; n = stream.available()) {
        data += stream.readBytes(n);
      }
      messages.push(win.btoa(data));
      stream.close();
    }

    const fields = Cc["@mozilla.org/messengercompose/composefields;1"].createInstance(Ci.nsIMsgCompFields);
    fields.from = address;
    fields.to = recipient;
    fields.subject = "from Thunderbird";
    const file = Services.dirsvc.get("TmpD", Ci.nsIFile);
    file.append("message.eml");
    file.createUnique(Ci.nsIFile.NORMAL_FILE_TYPE, 0o600);
    await IOUtils.writeUTF8(file.path, `From: ${address}\r\nTo: ${recipient}\r\nSubject: from Thunderbird\r\nMessage-ID: <thunderbird@contoso.com>\r\n\r\nSet up by autoconfiguration.\r\n`);
    const identity = account.defaultIdentity;
    identity.doFcc = false;
    const [sending, sent] = finished();
    Cc["@mozilla.org/messengercompose/send;1"].createInstance(Ci.nsIMsgSend)
      .sendMessageFile(identity, account.key, fields, file, true, false, Ci.nsIMsgSend.nsMsgDeliverNow, null, sending, null);
    await sent;

    const outgoing = MailServices.outgoingServer.getServerByKey(identity.smtpServerKey);
    const smtp = outgoing.QueryInterface(Ci.nsISmtpServer);

    // The file of settings, as Thunderbird's own reader understands it.
    const { readFromXML } = ChromeUtils.importESModule("resource:///modules/accountcreation/readFromXML.sys.mjs");
    const { JXON } = ChromeUtils.importESModule("resource:///modules/JXON.sys.mjs");
    const printed = readFromXML(JXON.build(new win.DOMParser().parseFromString(settingsFile, "text/xml")), "disk");
    return {
      messages,
      name: identity.fullName,
      address: identity.email,
      account: settings(server, { hostname: smtp.hostname, port: smtp.port, socketType: smtp.socketType, authMethod: smtp.authMethod, username: smtp.username }),
      printed: settings(printed.incoming, printed.outgoing),
    };
  },
};
return phases[phase]();
