// Validates objects of cert-manager, trust-manager, Cilium and the Prometheus operator: JSON list on standard input,
// JSON list of problems on standard output. The validators are generated from those projects' own types.
import { readFileSync } from "node:fs";

const groups = {
  "cert-manager.io/v1": () => import("@kubernetes-models/cert-manager/cert-manager.io/v1"),
  "trust.cert-manager.io/v1alpha1": () => import("@kubernetes-models/cert-manager/trust.cert-manager.io/v1alpha1"),
  "cilium.io/v2": () => import("@kubernetes-models/cilium/cilium.io/v2"),
  "monitoring.coreos.com/v1": () => import("@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1"),
};

const problems = [];
for (const object of JSON.parse(readFileSync(0, "utf8"))) {
  const name = `${object.apiVersion} ${object.kind} ${object.metadata.name}`;
  const group = groups[object.apiVersion] && (await groups[object.apiVersion]());
  const Model = group && group[object.kind];
  if (!Model) {
    problems.push(`${name}: no schema`);
    continue;
  }
  try {
    new Model(object).validate();
  } catch (error) {
    problems.push(`${name}: ${error.message}`);
  }
}
console.log(JSON.stringify(problems));
