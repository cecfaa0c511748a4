// Browsers run no modules of pages that were opened as files, and would say so nowhere but in their console.
if (location.protocol === "file:") {
  const place = document.getElementById("alert");
  place.textContent = "Browsers do not run this page from a file. Serve its folder: python -m http.server --directory FOLDER";
  place.hidden = false;
  document.getElementById("wait").hidden = true;
}
