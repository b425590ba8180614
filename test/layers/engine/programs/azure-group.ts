/** A group on Azure, driven by configuration: `osType`, `cpu`, `restartPolicy`, `subnet`, `value`, `latePort`. */
import * as pulumi from "@pulumi/pulumi";
import { ContainerGroup } from "../../../../components/azure/index.js";

const config = new pulumi.Config();
const latePort = config.getNumber("latePort");
const subnet = config.get("subnet");

new ContainerGroup("shop", {
  resourceGroupName: "shops",
  osType: config.get("osType"),
  restartPolicy: config.get("restartPolicy"),
  subnetIds: subnet === undefined ? undefined : [{ id: subnet }],
  containers: [
    {
      name: "web",
      image: `registry.example/web@sha256:${"ab".repeat(32)}`,
      environmentVariables: [
        { name: "VALUE", value: config.get("value") ?? "1" },
        { name: "TOKEN", secureValue: "canary-token" },
      ],
      ports: latePort === undefined ? undefined : [{ port: pulumi.output(Promise.resolve(latePort)) }],
      resources: { requests: { cpu: config.getNumber("cpu") ?? 1, memoryInGB: 1 } },
    },
  ],
});
