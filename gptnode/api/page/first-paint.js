// The chosen theme, before anything is painted: a module would come too late.
(() => {
  try {
    const theme = localStorage.getItem("gptnode.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Storage is forbidden here: the theme of the system it is.
  }
})();
