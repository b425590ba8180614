// Wrong in three fields.
const pulumi = require("@pulumi/pulumi");
const { NestedHost } = require("@palisade-host/palisade");

new NestedHost("host", {
  image: "latest",
  cpus: 0,
  memoryMiB: pulumi.output(2048),
  hypervisor: { uri: "esxi://elsewhere" },
  keysDirectory: "/keys",
});
