// The edits that the lab makes to the sources of two kernel modules before it builds them, each as the
// words to find and those to put in their place. The sources are Debian's; an edit that does not find
// its words exactly as often as it says stops the preparation: the kernel has changed, and the edit needs a look.
import { readFileSync, writeFileSync } from 'node:fs';

/** A change of one file. Lines are found by their words; what indents them stays. */
export interface SourceEdit {
  /** Below the module's folder. */
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

/**
 * gntdev: Debian's kernel has no dma-buf support in it. The device for which dma-bufs are made is compiled only
 * together with an allocator of DMA memory that x86 has no use for; and a mapping that devices may use
 * as well (GNTMAP_device_map) is refused by Xen to a domain that is not PV, which needs none.
 */
export const GNTDEV_EDITS: readonly SourceEdit[] = [
  {
    file: 'gntdev-common.h',
    find: '#ifdef CONFIG_XEN_GRANT_DMA_ALLOC\n\t/* Device for which DMA memory is allocated. */',
    replace: '#ifdef CONFIG_XEN_GNTDEV_DMABUF\n\t/* Device for which DMA memory is allocated. */',
  },
  {
    file: 'gntdev.c',
    find: '#ifdef CONFIG_XEN_GRANT_DMA_ALLOC\n\tpriv->dma_dev = gntdev_miscdev.this_device;',
    replace: '#ifdef CONFIG_XEN_GNTDEV_DMABUF\n\tpriv->dma_dev = gntdev_miscdev.this_device;',
  },
  {
    file: 'gntdev-dmabuf.c',
    find: 'map->flags |= GNTMAP_device_map;',
    replace: 'if (xen_pv_domain())\n\t\tmap->flags |= GNTMAP_device_map;',
  },
];

/**
 * vkms: two outputs, each with its planes, CRTC, encoder, connector and writeback connector, where it has one.
 * And the two encoders of an output say that they can show the same CRTC: this kernel refuses to write
 * back from a CRTC that is on a screen as well unless they do, which vkms forgot.
 */
export const VKMS_EDITS: readonly SourceEdit[] = [
  {
    file: 'vkms_drv.h',
    find: 'struct vkms_output output;',
    replace: 'struct vkms_output outputs[2];',
  },
  {
    file: 'vkms_drv.h',
    find: 'int vkms_enable_writeback_connector(struct vkms_device *vkmsdev);',
    replace:
      'int vkms_enable_writeback_connector(struct vkms_device *vkmsdev, struct vkms_output *output);',
  },
  {
    file: 'vkms_drv.c',
    find: [
      'if (vkms->output.composer_workq)',
      '\t\tdestroy_workqueue(vkms->output.composer_workq);',
    ].join('\n'),
    replace: [
      'for (int i = 0; i < ARRAY_SIZE(vkms->outputs); i++)',
      '\t\tif (vkms->outputs[i].composer_workq)',
      '\t\t\tdestroy_workqueue(vkms->outputs[i].composer_workq);',
    ].join('\n'),
  },
  {
    file: 'vkms_drv.c',
    find: 'drm_vblank_init(&vkms_device->drm, 1)',
    replace: 'drm_vblank_init(&vkms_device->drm, ARRAY_SIZE(vkms_device->outputs))',
  },
  {
    file: 'vkms_drv.c',
    find: 'return vkms_output_init(vkmsdev, 0);',
    replace: [
      'for (int i = 0; i < ARRAY_SIZE(vkmsdev->outputs) && ret == 0; i++)',
      '\t\tret = vkms_output_init(vkmsdev, i);',
      '\treturn ret;',
    ].join('\n'),
  },
  {
    file: 'vkms_output.c',
    find: 'struct vkms_output *output = &vkmsdev->output;',
    replace: 'struct vkms_output *output = &vkmsdev->outputs[index];',
  },
  {
    file: 'vkms_output.c',
    find: 'encoder->possible_crtcs = 1;',
    replace: 'encoder->possible_crtcs = drm_crtc_mask(crtc);',
  },
  {
    file: 'vkms_output.c',
    find: 'vkms_enable_writeback_connector(vkmsdev)',
    replace: 'vkms_enable_writeback_connector(vkmsdev, output)',
  },
  {
    file: 'vkms_output.c',
    find: 'DRM_ERROR("Failed to init writeback connector\\n");',
    replace: [
      'DRM_ERROR("Failed to init writeback connector\\n");',
      '\t\telse',
      '\t\t\tencoder->possible_clones = output->wb_connector.encoder.possible_clones =',
      '\t\t\t\tdrm_encoder_mask(encoder) | drm_encoder_mask(&output->wb_connector.encoder);',
    ].join('\n'),
  },
  {
    file: 'vkms_crtc.c',
    find: [
      'struct drm_device *dev = crtc->dev;',
      '\tstruct vkms_device *vkmsdev = drm_device_to_vkms_device(dev);',
      '\tstruct vkms_output *output = &vkmsdev->output;',
    ].join('\n'),
    replace: 'struct vkms_output *output = drm_crtc_to_vkms_output(crtc);',
  },
  {
    file: 'vkms_writeback.c',
    find: [
      'vkmsdev = drm_device_to_vkms_device(job->fb->dev);',
      '\tvkms_set_composer(&vkmsdev->output, false);',
    ].join('\n'),
    replace: 'vkms_set_composer(container_of(connector, struct vkms_output, wb_connector), false);',
  },
  {
    file: 'vkms_writeback.c',
    find: 'struct vkms_writeback_job *vkmsjob = job->priv;\n\tstruct vkms_device *vkmsdev;',
    replace: 'struct vkms_writeback_job *vkmsjob = job->priv;',
  },
  {
    file: 'vkms_writeback.c',
    find: [
      'struct vkms_device *vkmsdev = drm_device_to_vkms_device(conn->dev);',
      '\tstruct vkms_output *output = &vkmsdev->output;',
      '\tstruct drm_writeback_connector *wb_conn = &output->wb_connector;',
    ].join('\n'),
    replace: [
      'struct drm_writeback_connector *wb_conn = drm_connector_to_writeback(conn);',
      '\tstruct vkms_output *output = container_of(wb_conn, struct vkms_output, wb_connector);',
    ].join('\n'),
  },
  {
    file: 'vkms_writeback.c',
    find: 'vkms_set_composer(&vkmsdev->output, true);',
    replace: 'vkms_set_composer(output, true);',
  },
  {
    file: 'vkms_writeback.c',
    find: 'int vkms_enable_writeback_connector(struct vkms_device *vkmsdev)',
    replace:
      'int vkms_enable_writeback_connector(struct vkms_device *vkmsdev, struct vkms_output *output)',
  },
  {
    file: 'vkms_writeback.c',
    find: '&vkmsdev->output.wb_connector;',
    replace: '&output->wb_connector;',
  },
  {
    file: 'vkms_writeback.c',
    find: 'ARRAY_SIZE(vkms_wb_formats),\n\t\t\t\t\t    1);',
    replace: 'ARRAY_SIZE(vkms_wb_formats),\n\t\t\t\t\t    drm_crtc_mask(&output->crtc));',
  },
];

/** Makes the edits to the files in `folder`. @throws when the words of one are not there exactly once */
export function applyEdits(folder: string, edits: readonly SourceEdit[]): void {
  for (const { file, find, replace } of edits) {
    const pieces = readFileSync(`${folder}/${file}`, 'utf8').split(find);
    const times = pieces.length - 1;
    if (times !== 1)
      throw new Error(`${file} of the kernel has this ${times} times, not once: ${find}`);
    writeFileSync(`${folder}/${file}`, pieces.join(replace));
  }
}
