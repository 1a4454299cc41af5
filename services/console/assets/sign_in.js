// A token behind # in the address never reaches a server by itself; it is taken out of the history and sent as the form.
// A link of another site only fills the form in: nobody is signed in as somebody else without their doing.
"use strict";
const match = /^#token=([A-Za-z0-9._-]+)$/.exec(location.hash);
if (match) {
  history.replaceState(null, "", location.pathname + location.search);
  document.getElementById("token").value = match[1];
  const form = document.getElementById("sign-in");
  if ("direct" in form.dataset) form.submit();
}
