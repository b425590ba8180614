/** A group on Kubernetes. */
import { ContainerGroup } from "../../../../components/kubernetes/index.js";

new ContainerGroup("shop", {
  namespace: "shops",
  containers: [
    {
      name: "web",
      image: `registry.example/web@sha256:${"ab".repeat(32)}`,
      resources: { requests: { cpu: 1, memoryInGB: 1 } },
    },
  ],
});
