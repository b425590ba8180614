// What the package's own plugin previews on any machine.
const { Registry, StateDisk } = require("@palisade-host/palisade");

new Registry("registry");
new StateDisk("data", { sizeGiB: 1 });
