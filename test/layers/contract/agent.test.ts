/** The real agent under the contract of AgentClient. */
import { expect } from "vitest";
import { AgentHost } from "./agent-host.js";
import { agentContract } from "./agent.js";

agentContract("roles of this tree", async () => {
  const host = await AgentHost.start();
  return {
    subject: host,
    async dispose() {
      await host.stop();
      // Of secret values and of the registry's password.
      expect(host.log).not.toContain("canary");
    },
  };
});
