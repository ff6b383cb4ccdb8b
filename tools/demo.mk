# Render a small data set, train a contextual Mask R-CNN on it, test it, draw what it finds and where
# its contextual convolutions look.
#
#   make -f tools/demo.mk [PYTHON=python] [DATA=data/shapes] [WORK_DIR=work_dirs/demo]
#                         [IMAGES='--num-train ... --num-val ...'] [OPTIONS='--cfg-options ...']
#
# Finished steps are not repeated. An interrupted training resumes from its last checkpoint, unless
# the config has changed since: then it starts again.

TOOLS := $(dir $(lastword $(MAKEFILE_LIST)))
CONFIGS := $(TOOLS:tools/=configs/)
CONFIG := $(CONFIGS)mask_rcnn_ctx_convnext_shapes.py
PYTHON ?= python
DATA ?= data/shapes
WORK_DIR ?= work_dirs/demo
# The config reads it.
export SHAPES_ROOT := $(DATA)
# Threads that spin for long make training many times slower if other processes use the same cores;
# threads that do not spin double its time if none does.
export GOMP_SPINCOUNT ?= 20000
# Validation images on which the context is shown.
SEEN := 000000 000001 000002

.PHONY: demo
.DELETE_ON_ERROR:

demo: $(WORK_DIR)/pictures/contact_sheet.png $(WORK_DIR)/context/drawn
	@echo 'Pictures: $<, $(WORK_DIR)/context/; to train again, remove $(WORK_DIR)/'

$(DATA)/shapes.json:
	$(PYTHON) $(TOOLS)dataset_converters/render_shapes.py $(DATA) $(IMAGES)

$(WORK_DIR)/started: $(DATA)/shapes.json $(CONFIG) $(CONFIGS)_base_/shapes_instance.py
	@if [ -e $@ ]; then rm -r $(WORK_DIR); fi
	@mkdir -p $(WORK_DIR) && touch $@

$(WORK_DIR)/trained: $(WORK_DIR)/started
	$(PYTHON) $(TOOLS)train.py $(CONFIG) --work-dir $(WORK_DIR) --resume $(OPTIONS)
	@touch $@

$(WORK_DIR)/predictions.pkl: $(WORK_DIR)/trained
	$(PYTHON) $(TOOLS)test.py $(CONFIG) "$$(cat $(WORK_DIR)/last_checkpoint)" \
		--work-dir $(WORK_DIR)/test --out $@ $(OPTIONS)

$(WORK_DIR)/pictures/contact_sheet.png: $(WORK_DIR)/predictions.pkl
	$(PYTHON) $(TOOLS)analysis/draw_predictions.py $(CONFIG) $< $(@D) $(OPTIONS)

$(WORK_DIR)/context/drawn: $(WORK_DIR)/trained
	$(PYTHON) -m mmctx see sampling $(SEEN:%=$(DATA)/val/%.jpg) --stage 3 --out $(@D) \
		--config $(CONFIG) --checkpoint "$$(cat $(WORK_DIR)/last_checkpoint)"
	@touch $@
