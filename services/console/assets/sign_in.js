// A token behind # in the address never reaches a server by itself; it is taken out of the history and sent as the form.
"use strict";
const match = /^#token=([A-Za-z0-9._-]+)$/.exec(location.hash);
if (match) {
  history.replaceState(null, "", location.pathname + location.search);
  document.getElementById("token").value = match[1];
  document.getElementById("sign-in").submit();
}
