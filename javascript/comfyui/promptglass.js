// promptglass in ComfyUI's frontend: cards on our nodes, a menu on nodes that show pictures, a sidebar tab.
// Registers one extension and keeps nothing on window. The frontend loads this file; the others are its modules.

import { drawOn, drawsCards } from "./promptglass/cards.mjs";
import { addStyles, app, nodeAt, outputOf } from "./promptglass/host.mjs";
import { commands, menuCommands, menuItems, toolboxCommands } from "./promptglass/menu.mjs";
import { applyProfile, fillProfiles, settings } from "./promptglass/settings.mjs";
import { sidebarTab } from "./promptglass/sidebar.mjs";

app.registerExtension({
  name: "promptglass.nodes",
  settings,
  commands,
  menuCommands,

  setup() {
    addStyles();
    app.extensionManager.registerSidebarTab(sidebarTab);
    fillProfiles();
  },

  nodeCreated(node) {
    if (!drawsCards(node)) return;
    applyProfile(node);
    const { onExecuted } = node;
    node.onExecuted = function (output) {
      onExecuted?.call(this, output);
      drawOn(node, output);
    };
  },

  // The graph was read anew: after an undo, for instance.
  loadedGraphNode(node) {
    drawOn(node, outputOf(node));
  },

  // The user came back to a workflow's tab.
  onNodeOutputsUpdated(outputs) {
    for (const [locator, output] of Object.entries(outputs)) drawOn(nodeAt(locator), output);
  },

  getNodeMenuItems: menuItems,
  getSelectionToolboxCommands: toolboxCommands,
});
